"""A model for mails that may have several labels, from a table to verdicts."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving.classifier import Classifier
from training.bundle import load
from training.config import resolve
from training.evaluation import evaluate, write_predictions
from training.fit import fit
from training.home import Home
from training.mail import Mail
from training.run import new_run
from training.stages import Quiet

pytestmark = pytest.mark.usefixtures("ray_session")

WORDS = {
    "work": "invoice meeting project budget report",
    "urgent": "immediately asap deadline now hurry",
}
FILLERS = ["the", "we", "you", "it", "was", "have", "from", "about", "under", "tree", "river"]


def _table(file: Path) -> None:
    """Mails whose words tell their labels, about a quarter of them with both and with none."""
    chance = random.Random(0)
    lines = []
    for number in range(400):
        has = [label for label in WORDS if chance.random() < 0.5]
        words = [chance.choice(WORDS[label].split()) for label in has for _ in range(6)]
        words += chance.choices(FILLERS, k=8)
        chance.shuffle(words)
        mail = {
            "id": f"m{number}",
            "label": has,
            "subject": f"no {number}",
            "body": " ".join(words),
        }
        lines.append(json.dumps(mail))
    file.write_text("\n".join(lines) + "\n")


def test_several_labels_from_a_table_to_verdicts(home: Path, tmp_path: Path) -> None:
    _table(tmp_path / "mails.jsonl")
    here = Home(home)
    config = resolve(
        recipe="smoke",
        overrides=[
            f"data.source={tmp_path / 'mails.jsonl'}", "data.labels=[work, urgent]",
            "data.multi_label=true", "model.head=sigmoid", "optimizer.epochs=12",
            "optimizer.lr=0.002", "optimizer.class_weights=balanced",
        ],
    )  # fmt: skip
    result = fit(new_run(here, config, "several"), here, Quiet())
    test = result.bundle.metrics["test"]
    assert test["accuracy"] > 0.8
    assert min(test["classes"][label]["f1-score"] for label in WORDS) > 0.8
    assert [sum(map(sum, counts)) for counts in test["confusion"]] == [test["mails"]] * 2

    bundle = load(result.bundle.path)
    assert bundle.head.multi
    scored = evaluate(bundle, here, Quiet(), workers=1)
    assert scored.report()["accuracy"] == pytest.approx(test["accuracy"], abs=0.05)
    write_predictions(scored, tmp_path / "predictions.parquet")
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert {row["label"] for row in rows} == {"", "work", "urgent", "work|urgent"}
    right = [row["label"] == row["predicted"] for row in rows]
    assert sum(right) / len(right) == scored.report()["accuracy"]

    classifier = Classifier(bundle.path)
    assert classifier.info.multi_label
    table = [json.loads(line) for line in (tmp_path / "mails.jsonl").read_text().splitlines()]
    asked = {mail["id"]: Mail(subject=mail["subject"], body=mail["body"]) for mail in table}
    verdicts = classifier.classify_mails([asked[row["id"]] for row in rows])
    agreed = [
        "|".join(verdict.labels) == row["predicted"]
        for verdict, row in zip(verdicts, rows, strict=True)
    ]
    assert sum(agreed) / len(agreed) > 0.9, "only what stands on the threshold may differ"
    both = next(verdict for verdict in verdicts if len(verdict.labels) == 2)
    assert both.probability == max(both.scores.values()) == both.scores[both.label]
