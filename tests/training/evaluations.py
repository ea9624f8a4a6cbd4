"""Evaluations made up for reports: scores as a model's, and whatever else a report can show."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from training.assessment import Evaluation
from training.bundle import Bundle
from training.evaluation import Scored
from training.labels import Labels
from training.model import HeadShape
from training.operating import fit

EPOCHS = tuple(
    {"epoch": epoch, "train_loss": 0.5 / epoch, "val_loss": 0.4 / epoch + 0.01 * epoch,
     "val_accuracy": 1 - 0.05 / epoch, "val_f1": 1 - 0.06 / epoch, "val_roc_auc": 1 - 0.01 / epoch,
     "seconds": 31.5, "best": epoch == 3}
    for epoch in range(1, 5)
)  # fmt: skip
HAM_SPAM = Labels(("ham", "spam"))


def bundle(folder: Path, labels: Labels = HAM_SPAM, **facts: Any) -> Bundle:
    """What a report reads of a bundle: its facts, and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("recipe: made-up\ndata:\n  source: synthetic:9\n", "utf-8")
    head = HeadShape(labels=len(labels.names), pooling="mean", kind="softmax", dropout=0.0,
                     multi=labels.multi)  # fmt: skip
    given: dict[str, Any] = {"path": folder, "name": "mailray-spam", "version": "7",
                             "labels": labels.names, "max_length": 128, "keep_head": 0.75,
                             "read_length": 128,
                             "mail_text_version": 2, "extras": (), "head": head}  # fmt: skip
    return Bundle(**(given | facts))


def scored(labels: Labels, mails: int, seed: int = 0, skill: float = 4.0) -> Scored:
    """Mails of which one in three has the last label, or each label one in three."""
    chance = np.random.default_rng(seed)
    count = len(labels.names)
    ids = [f"folder/mail-{number:06d}.eml" for number in range(mails)]
    if labels.multi:
        several = chance.random((mails, count)) < 1 / 3
        scores = expit(np.where(several, skill, -skill) + chance.normal(0, 2, (mails, count)))
        return Scored(labels, ids, several, scores.astype(np.float32))
    truth = (chance.random(mails) * 3).astype(np.int64) % count if count > 2 else (
        chance.random(mails) < 1 / 3
    ).astype(np.int64)  # fmt: skip
    logits = skill * (truth[:, None] == np.arange(count)) + chance.normal(0, 1.6, (mails, count))
    return Scored(labels, ids, truth, softmax(logits, axis=1).astype(np.float32))


def whole(folder: Path, labels: Labels = HAM_SPAM, mails: int = 2000) -> Evaluation:
    """An evaluation in which nothing is absent."""
    found = scored(labels, mails)
    two = len(labels.names) == 2 and not labels.multi
    points = fit(scored(labels, 6000, 9).positive) if two else []
    keys = ("accuracy", "recall", "false_positive_rate") if two else ("accuracy",)
    values = found.report(points)
    figures = {key: values[key] for key in keys} | {"intervals": {
        key: values["intervals"][key] for key in keys}}  # fmt: skip
    return Evaluation(
        bundle=bundle(folder, labels, points=tuple(points)),
        mails="test mails",
        scored=found,
        values=values,
        slices=[
            {"by": by, "slice": name, "mails": 120, "wrong": 12 - at, "small": at == 1} | figures
            for at, (by, name) in enumerate((("format", "HTML only"), ("month", "2002-07"),
                                             ("length", "1,000 to 4,000"), ("links", "none")))
        ],
        robustness=[
            {"disguise": name, "mails": mails, "changed": mails - 31 * at,
             "roc_auc": values["roc_auc"] - 0.01 * at} | figures
            for at, name in enumerate(("clean", "look-alike letters", "zero-width characters",
                                       "split words", "leetspeak", "hidden text", "good words",
                                       "image-only body", "capitals", "short links", "truncated",
                                       "disclaimer"))
        ],
        baselines={"byte 4-grams": scored(labels, mails, 0, 3.0),
                   "TF-IDF words": scored(labels, mails, 0, 3.5)},
        suspects=[
            {"id": found.ids[at], "label": labels.names[0], "likelier": labels.names[1],
             "probability": 0.01 * at, "rank": at + 1}
            for at in range(3)
        ],
        epochs=EPOCHS,
        provenance={"Source": "synthetic:9", "Commit": "0" * 40},
    )  # fmt: skip
