"""Pairs: which mails two models are asked about, and which models cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_evaluation import Heard
from training import synthetic
from training.bundle import Bundle, BundleError, save
from training.comparison import compare
from training.config import resolve
from training.evaluation import data_of
from training.home import Home
from training.mails import survey
from training.model import build
from training.operating import OperatingPoint
from training.pairs import score_both, thresholds
from training.sources import SourceError
from training.stages import Quiet
from training.weights import tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def here(home: Path) -> Home:
    return Home(home)


def _bundle(
    place: Path, *overrides: str, turned: bool = False, points: tuple[OperatingPoint, ...] = ()
) -> Bundle:
    """A model that has learned nothing; `turned` the same with its two labels changed over."""
    config = resolve(recipe="smoke", overrides=list(overrides))
    torch.manual_seed(0)
    model = build(
        config.model, len(config.data.labels), config.data.max_length,
        multi=config.data.multi_label,
    )  # fmt: skip
    torch.nn.init.normal_(model.head.weight)
    if turned:
        with torch.no_grad():
            model.head.weight.copy_(model.head.weight.flip(0).clone())
    words = tokenizer("tiny")
    return save(place / "bundle", model, words, config, version="1", metrics={}, points=points)


def _ids(bundle: Bundle, here: Home, side: str) -> set[str]:
    mails, _ = survey(data_of(bundle), bundle.tokenizer(), here, Quiet())
    return set(mails.cache.table()["id"].take(mails.on(side)).to_pylist())


def test_models_of_other_splits_are_asked_about_what_neither_was_trained_on(
    here: Home, tmp_path: Path
) -> None:
    split = ("data.test=0.3", "data.source=synthetic:150")
    a, b = (_bundle(tmp_path / str(at), *split, f"data.seed={at}") for at in (0, 1))
    both = _ids(a, here, "test") & _ids(b, here, "test")
    assert 0 < len(both) < len(_ids(a, here, "test"))
    heard = Heard()
    for source in (None, "synthetic:150"):  # to name their own makes no trained mail a new one
        one, other = score_both(a, b, here, heard, source=source, workers=1)
        assert set(one.ids) == both
        assert one.ids == other.ids
    assert f"{len(both)} of them the same: these are compared" in heard.notes[-1]


def test_the_order_of_the_labels_does_not_matter(here: Home, tmp_path: Path) -> None:
    point = OperatingPoint("lenient", 0.01, 0.9, 299, 400)
    a = _bundle(tmp_path / "a", points=(point,))
    b = _bundle(tmp_path / "b", "data.labels=[spam,ham]", turned=True, points=(point,))
    one, other = score_both(a, b, here, Quiet(), source="synthetic:99", workers=1)
    assert (one.truth == other.truth).all()
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    values = compare(one, other, thresholds(a, b))
    assert values["points"] == [], "a point of ham is none of spam"
    assert thresholds(a, a) == {"lenient": (0.9, 0.9)}


def test_a_model_beside_itself_shows_no_difference(here: Home, tmp_path: Path) -> None:
    a = _bundle(tmp_path)
    values = compare(*score_both(a, a, here, Quiet(), source="synthetic:99"))
    assert [row["difference"] for row in values["figures"]] == [0.0] * 7
    assert (values["mails"], values["mcnemar"]["p"], values["changed"]) == (99, 1.0, [])


def test_models_with_other_labels_are_refused(here: Home, tmp_path: Path) -> None:
    a = _bundle(tmp_path / "a")
    b = _bundle(tmp_path / "b", "data.labels=[billing,urgent]")
    several = _bundle(tmp_path / "c", "data.multi_label=true", "model.head=sigmoid")
    with pytest.raises(BundleError, match=r"a/bundle \(ham, spam\) and .*b/bundle \(billing, urg"):
        score_both(a, b, here, Quiet())
    with pytest.raises(BundleError, match=r"c/bundle \(any of ham, spam\) and .*a/bundle \(ham"):
        score_both(several, a, here, Quiet())


def test_models_without_a_mail_in_common_are_refused(here: Home, tmp_path: Path) -> None:
    a = _bundle(tmp_path / "a", "data.source=synthetic:60")
    b = _bundle(tmp_path / "b", "data.source=synthetic:61")
    with pytest.raises(SourceError, match=r"trained on synthetic:60, .* synthetic:61: name other"):
        score_both(a, b, here, Quiet())
    both = _bundle(tmp_path / "c", "data.source=synthetic:60", "data.with_validation=true")
    with pytest.raises(SourceError, match=r"c/bundle was trained on its validation mails too"):
        score_both(a, both, here, Quiet(), split="validation")
    named = tmp_path / "named.jsonl"
    lines = [
        json.dumps({"id": id_, "label": label, "raw": raw.decode(), "split": "train"})
        for id_, label, raw in synthetic.mails(9)
    ]
    named.write_text("\n".join(lines))
    trained = _bundle(tmp_path / "d", f"data.source={named}")
    with pytest.raises(SourceError, match="no mail is on the test side of both"):
        score_both(trained, trained, here, Quiet())
