"""Recipes, overrides, and the faults of a wrong config."""

from pathlib import Path

import pytest

from training.config import resolve
from training.home import Home
from training.schema import ConfigError


def test_spam_bert_is_the_classic_setup() -> None:
    config = resolve(recipe="spam-bert")
    assert (config.model.name, config.model.head, config.model.pooling) == (
        "bert-base-uncased",
        "sigmoid",
        "pooler",
    )
    assert (config.optimizer.lr, config.optimizer.epochs) == (2e-5, 5)
    assert (config.batching.size, config.data.max_length) == (16, 512)


def test_an_override_changes_one_key_alone() -> None:
    plain = resolve(recipe="smoke").model_dump()
    changed = resolve(recipe="smoke", overrides=["optimizer.lr=3e-5"]).model_dump()
    assert changed["optimizer"].pop("lr") == 3e-5
    plain["optimizer"].pop("lr")
    assert changed == plain


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("optimizer: {lr: -1, epoch: 3}\nscaling: {workers: many}\n")
    with pytest.raises(ConfigError) as error:
        resolve(file=file)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "optimizer.lr: input should be greater than 0, got -1" in lines
    assert any("did you mean epochs?" in line for line in lines)
    assert any(line.startswith("scaling.workers:") and "'many'" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lr", "overrides are written key=value"),
        ("optimizer.lr.peak=1", "is a value, it has no keys below it"),
        ("data.labels=[spam]", "at least two different names"),
        ("data.test=0.95", "must leave mails to train on"),
        ("batching.size=1", "must be at least scaling.workers"),
    ],
)
def test_a_wrong_override_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(recipe="smoke", overrides=[override])


def test_sigmoid_needs_two_labels() -> None:
    with pytest.raises(ConfigError, match="sigmoid needs two"):
        resolve(recipe="smoke", overrides=["model.head=sigmoid", "data.labels=[a, b, c]"])


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"smoke, spam-bert, spam-minilm \(did you mean smoke"):
        resolve(recipe="smok")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        resolve(file=tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        resolve(file=tmp_path / "none.yaml")


def test_a_wide_part_reads_no_less_than_the_encoder() -> None:
    with pytest.raises(ConfigError, match=r"wide_length: 0, or at least data.max_length \(64\)"):
        resolve(recipe="smoke", overrides=["data.wide_length=32"])


def test_a_tracker_is_named_without_its_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:secret@mlflow.example:5000/a@b")
    assert Home(home).tracker == "https://mlflow.example:5000/a@b"
