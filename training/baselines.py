"""Baselines: linear models of the same mails on the same splits, which a model has to beat.

baselines(config.data, home, mails, stages)["TF-IDF words"].report()
"""

from typing import Final

import numpy as np
import pyarrow as pa

from training.config import DataConfig
from training.counting import Models, read, scores
from training.evaluation import Scored
from training.home import Home
from training.labels import Labels
from training.linear import KINDS, Linear
from training.mails import Mails
from training.metrics import summary
from training.stages import Stages

MOST: Final = 20_000
"""Mails to learn from: more take minutes and gigabytes, and the answer is nearly the same."""


def baselines(
    data: DataConfig, home: Home, mails: Mails, stages: Stages, split: str = "test"
) -> dict[str, Scored]:
    """What each model of KINDS makes of a split, mails in the order of `mails.on(split)`.

    They learn from the mails that training has, of very many a part that follows from `data.seed`.

    Raises:
        SourceError: the source is no longer as its tokens were made of it.
    """
    with stages.stage("baselines") as stage:
        train, rows = mails.rows().train, mails.on(split)
        chosen = drawn(train, data.seed)
        total = len(chosen) + len(rows)

        def learning(done: int) -> None:
            stage.update(f"{done:,} mails read", done, total)

        def scoring(done: int) -> None:
            stage.update(f"{done:,} mails scored", len(chosen) + done, total)

        labels = data.label_set
        counted = read(data, home, mails, chosen, learning)
        stage.update(f"learning from {len(chosen):,} mails", len(chosen), total)
        models = learn(counted, labels.indicator(mails.labels[chosen]), labels)
        found = scores(data, home, mails, rows, [models], np.zeros(len(rows), int), scoring)
        ids = mails.cache.table()["id"].take(pa.array(rows)).to_pylist()
        truth = labels.truth(mails.labels[rows])
        part = f" of {len(train):,}" if len(chosen) < len(train) else ""
        areas = (f"{kind} {summary(truth, found[kind])['roc_auc']:.4f}" for kind in KINDS)
        stage.update(f"ROC AUC of {', '.join(areas)}; {len(chosen):,}{part} mails to learn from")
    return {kind: Scored(labels, ids, truth, found[kind]) for kind in KINDS}


def drawn(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most MOST of some rows, in their order."""
    if len(rows) <= MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))


def learn(counted: pa.Table, has: np.ndarray, labels: Labels) -> Models:
    """A model of each kind from `features` and bool [mails, labels]."""
    return {kind: Linear.fit(kind, counted, has, multi=labels.multi) for kind in KINDS}
