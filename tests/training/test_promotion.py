"""Moving an alias, and moving it back: what is refused, and what is remembered."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch

from tests.training.registered import NAME, registered
from training.bundle import BundleError, load
from training.home import Home
from training.model import MailModel
from training.promotion import PromotionError, history, models, promote, rollback, versions
from training.registry import ModelNotFound, resolve
from training.tracking import TrackingError, client
from training.upload import add


def nan(model: MailModel) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 3, of which 1 is the champion; 4 is not finite, 5 has other labels."""
    root = tmp_path_factory.mktemp("registry")
    here = Home(root / "home")
    here.root.mkdir()
    for seed in range(3):
        registered(here, root, seed=seed, promote="better")
    registered(here, root, seed=3, spoil=nan)
    registered(here, root, seed=4, labels=("ham", "spam", "bulk"))
    return here.root


@pytest.fixture
def here(template: Path, tmp_path: Path) -> Home:
    # Artifacts stay where they are: their places are in the database.
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "mlflow.db").write_bytes((template / "mlflow.db").read_bytes())
    return home


def served(here: Home) -> str:
    return str(client(here).get_model_version_by_alias(NAME, "champion").version)


def test_a_promotion_says_what_it_replaces_and_a_rollback_goes_back_step_by_step(
    here: Home,
) -> None:
    assert served(here) == "1"
    assert promote(here, NAME, "3", force=False).before == "1"
    assert promote(here, NAME, "2", force=False).before == "3"
    assert history(here, NAME) == ["1", "3", "2"]
    for expected in ("3", "1"):
        assert rollback(here, NAME).version == served(here) == expected
    with pytest.raises(PromotionError, match="stood at no version but 1"):
        rollback(here, NAME)
    assert served(here) == "1"


def test_a_promotion_to_where_it_stands_is_no_step(here: Home) -> None:
    promote(here, NAME, "2", force=False)
    assert promote(here, NAME, "2", force=False).before == "2"
    assert rollback(here, NAME).version == "1"


def test_a_bundle_from_elsewhere_is_a_version_that_nothing_points_to(
    here: Home, template: Path
) -> None:
    assert add(here, load(template.parent / "bundle-2")) == "6"
    assert served(here) == "1"
    newest = versions(here, NAME)[0]
    assert (newest.version, newest.aliases, newest.run) == ("6", (), "run-2")
    assert promote(here, NAME, "6", force=False).before == "1"
    assert load(resolve(here, NAME)).version == "6"
    elsewhere = Home(here.root / "new")
    elsewhere.root.mkdir()
    assert add(elsewhere, load(template.parent / "bundle-2")) == "1"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a:b", "a@b", "..", "", "a b"])
def test_a_bundle_whose_name_is_none_is_refused(here: Home, template: Path, name: str) -> None:
    bundle = replace(load(template.parent / "bundle-2"), name=name)
    with pytest.raises(BundleError, match="a name has letters, digits"):
        add(here, bundle)
    assert {row.name for row in models(here)} == {NAME}


def test_an_alias_that_others_have_moved_is_rolled_back_to_where_it_was_before(here: Home) -> None:
    promote(here, NAME, "2", force=False)
    client(here).set_registered_model_alias(NAME, "champion", "3")
    assert history(here, NAME) == ["1", "2", "3"]
    assert rollback(here, NAME).version == "2"


def test_a_rollback_passes_over_what_has_been_deleted(here: Home) -> None:
    promote(here, NAME, "2", force=False)
    promote(here, NAME, "3", force=False)
    client(here).delete_model_version(NAME, "2")
    assert rollback(here, NAME).version == "1"


def test_each_alias_has_a_trail_of_its_own(here: Home) -> None:
    assert promote(here, NAME, "2", "challenger", force=False).before is None
    assert history(here, NAME, "challenger") == ["2"]
    assert history(here, NAME) == ["1"]
    assert resolve(here, f"{NAME}@challenger") == resolve(here, f"{NAME}:2")


@pytest.mark.parametrize(
    ("version", "fault", "words"),
    [
        ("9", ModelNotFound, "no model mailray-spam:9 is registered; there are: mailray-spam"),
        ("4", BundleError, "is damaged: .* is not finite"),
        ("5", PromotionError, "has the labels ham, spam, bulk, version 1 has ham, spam; --force"),
    ],
)
def test_what_cannot_be_served_is_not_promoted(
    here: Home, version: str, fault: type[Exception], words: str
) -> None:
    with pytest.raises(fault, match=words):
        promote(here, NAME, version, force=False)
    assert served(here) == "1"
    assert history(here, NAME) == ["1"]


def test_other_labels_are_promoted_by_force_and_damaged_weights_are_not(here: Home) -> None:
    assert promote(here, NAME, "5", force=True).version == served(here) == "5"
    with pytest.raises(BundleError):
        promote(here, NAME, "4", force=True)


def test_weights_that_were_cut_off_are_not_promoted(here: Home, tmp_path: Path) -> None:
    place = resolve(here, f"{NAME}:2")
    copy = copytree(place, tmp_path / "whole")
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match="damaged or of another model"):
        promote(here, NAME, "2", force=False)
    assert (copy / "model.safetensors").is_file()
    assert served(here) == "1"


def test_the_list_has_every_version_and_its_aliases(here: Home) -> None:
    rows = versions(here, NAME)
    assert [row.version for row in rows] == ["5", "4", "3", "2", "1"]
    assert [row.aliases for row in rows if row.aliases] == [("champion",)]
    assert [row.run for row in rows] == [f"run-{seed}" for seed in (4, 3, 2, 1, 0)]
    assert all(row.roc_auc is None for row in rows)
    assert models(here) == rows


def test_an_unknown_model_is_named_with_those_there_are(here: Home) -> None:
    with pytest.raises(ModelNotFound, match="there are: mailray-spam"):
        versions(here, "other")
    with pytest.raises(ModelNotFound, match="there are: mailray-spam"):
        rollback(here, "other")


def test_a_registry_that_is_down_is_one_line(here: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for ask in (lambda: models(here), lambda: promote(here, NAME, "1", force=False)):
        with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 does not answer") as caught:
            ask()
        assert "\n" not in str(caught.value)
