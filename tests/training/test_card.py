"""The model card: what the hub's own library reads from it, and what a person does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, metadata_eval_result

from training.bundle import Bundle
from training.card import card
from training.config import TrainConfig, resolve
from training.evaluation import Scored
from training.labels import Labels
from training.model import HeadShape
from training.operating import OperatingPoint

LABELS = ("ham", "spam")
POINTS = (
    OperatingPoint("strict", 0.001, None, 2995, 700),
    OperatingPoint("balanced", 0.005, 0.9, 598, 700),
)


def _report(seed: int = 0) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, 300)
    spam = np.clip(truth * 0.6 + chance.random(300) * 0.5, 0, 1).astype(np.float32)
    scores = np.stack([1 - spam, spam], 1)
    return Scored(Labels(LABELS), list(map(str, truth)), truth, scores).report(POINTS)


@pytest.fixture
def config() -> TrainConfig:
    return resolve(recipe="spam-minilm")


@pytest.fixture
def bundle() -> Bundle:
    return Bundle(
        path=Path("/nowhere"),
        name="mailray-spam",
        version="run-1",
        labels=LABELS,
        max_length=128,
        keep_head=0.75, read_length=64,
        mail_text_version=2,
        extras=(),
        head=HeadShape(2, "mean", "softmax", 0.1),
        metrics={
            "validation": _report(1), "test": _report(),
            "baselines": {"TF-IDF words": _report(2)},
        },
        points=POINTS,
        epochs=(
            {"epoch": 1, "train_loss": None, "val_loss": 0.5, "val_f1": 0.8, "val_roc_auc": 0.9,
             "seconds": 60.0, "best": False},
            {"epoch": 2, "train_loss": 0.2, "val_loss": 0.4, "val_f1": 0.9, "val_roc_auc": 0.95,
             "seconds": 60.0, "best": True},
        ),
        provenance={
            "commit": "abc-dirty", "cpu": "2 x EPYC", "data.fingerprint": "f00d",
            "data.train": "4836", "data.validation": "605", "data.test": "605",
        },
    )  # fmt: skip


def _data(text: str) -> Any:
    """The metadata as the hub's library has them."""
    return ModelCard(text).data


def test_the_hub_reads_the_metadata(bundle: Bundle, config: TrainConfig) -> None:
    data = _data(card(bundle, config))
    assert data.pipeline_tag == "text-classification"
    assert (data.language, data.license) == ("en", "apache-2.0")
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert {"email", "spam-detection"} <= set(data.tags)
    assert data.model_name == "mailray-spam"
    found = {result.metric_type: result for result in data.eval_results}
    test = bundle.metrics["test"]
    assert {kind: result.metric_value for kind, result in found.items()} == {
        "accuracy": test["accuracy"], "precision": test["precision"], "recall": test["recall"],
        "f1": test["f1"], "roc_auc": test["roc_auc"], "brier_score": test["brier"],
    }  # fmt: skip
    assert data.metrics == list(found)
    for result in found.values():
        assert (result.dataset_split, result.dataset_revision) == ("test", "f00d")


def test_the_model_index_is_as_the_hub_would_make_it(bundle: Bundle, config: TrainConfig) -> None:
    [_, head, _] = card(bundle, config).split("---\n", 2)
    [index] = yaml.safe_load(head)["model-index"]
    made = metadata_eval_result(
        model_pretty_name="mailray-spam", task_pretty_name="E-mail classification",
        task_id="text-classification", metrics_pretty_name="Accuracy", metrics_id="accuracy",
        metrics_value=bundle.metrics["test"]["accuracy"], dataset_pretty_name="spamassassin",
        dataset_id="spamassassin", dataset_split="test", dataset_revision="f00d",
    )["model-index"][0]  # fmt: skip
    [wanted], [result] = made["results"], index["results"]
    assert index["name"] == made["name"]
    assert (result["task"], result["dataset"]) == (wanted["task"], wanted["dataset"])
    assert result["metrics"][0].items() <= wanted["metrics"][0].items()


def test_a_person_reads_figures_with_intervals(bundle: Bundle, config: TrainConfig) -> None:
    text = card(bundle, config)
    test = bundle.metrics["test"]
    low, high = test["intervals"]["roc_auc"]
    assert f"| ROC AUC | {test['roc_auc']:.4f} | {low:.4f} to {high:.4f} |" in text
    assert "| Test (300 mails) | value | 95% interval |" in text
    assert "needs 2,995 good mails to validate on, had 700" in text
    assert "| TF-IDF words |" in text
    assert "| Baselines (" not in text, "they are no split"
    assert "| 2, kept | 0.2000 | 0.4000 | 0.9000 | 0.9500 |" in text
    assert "4,836 train, 605 validation, 605 test" in text
    assert "`abc-dirty`" in text
    assert "2.0 minutes" in text
    assert "nan" not in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Intended use and limits", "## Training data", "## Training procedure",
        "## Evaluation", "## How to use", "## How it was made",
    ]  # fmt: skip


def test_what_is_not_known_is_left_out(bundle: Bundle) -> None:
    config = resolve(
        recipe="smoke", overrides=["data.source=hf:some/mails", "data.labels=[work,play]"]
    )
    bare = replace(bundle, metrics={}, epochs=(), provenance={}, points=(), labels=("work", "play"))
    text = card(bare, config)
    data = _data(text)
    assert data.to_dict().keys() == {"library_name", "pipeline_tag", "tags", "datasets"}
    assert data.datasets == ["some/mails"]
    assert "spam-detection" not in text
    assert "## Evaluation" not in text


def test_figures_that_are_no_numbers_are_left_out(bundle: Bundle, config: TrainConfig) -> None:
    test = bundle.metrics["test"] | {"roc_auc": float("nan")}
    text = card(replace(bundle, metrics={"test": test}), config)
    found = [result.metric_type for result in _data(text).eval_results]
    assert "roc_auc" not in found
    assert "accuracy" in found
    assert "nan" not in text
