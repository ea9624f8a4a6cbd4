"""Suspects: mails whose label is probably wrong, by confident learning. No label is ever changed.

    suspects(cross_validated(config.data, home, mails, stages))
    suspects(unseen(bundle, home, stages))

How many labels are wrong is estimated from the mails of which a model that has not learned from
them is as sure of another label as of that label's own mails on average; suspects are so many,
those that it is surest of (Northcutt, Jiang and Chuang, 'Confident Learning', JAIR 2021; by
cleanlab).
What most mails of a kind have wrong is not found.
"""

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from training.baselines import drawn, learn
from training.bundle import Bundle
from training.config import DataConfig, TrainConfig
from training.counting import read
from training.counting import scores as judged
from training.evaluation import Scored, score
from training.home import Home
from training.linear import KINDS
from training.mails import Mails, survey
from training.schema import read_yaml, validate
from training.sources import SourceError
from training.stages import Stages

FOLDS: Final = 5
SCHEMA: Final = pa.schema(
    [
        ("rank", pa.int64()),
        ("id", pa.string()),
        ("label", pa.string()),
        ("likelier", pa.string()),
        ("probability", pa.float64()),
    ]
)


def suspects(scored: Scored) -> list[dict[str, Any]]:
    """The suspects among mails that the model has not learned from, the least probable first.

    A row is rank (from 1), id, label, the likelier label, and the probability of the given label.
    Where a mail may have several labels, `likelier` differs from `label` in those that are
    suspected, and the probability is the lowest that one of these is as given.
    """
    labels, truth, scores = scored.labels, scored.truth, scored.scores.astype(np.float64)
    if labels.multi:
        sides = (np.stack([1 - p, p], 1) for p in scores.T)
        each = zip(truth.T.astype(int), sides, strict=True)
        wrong = np.stack([_wrong(has, side) for has, side in each], 1)
        found, likelier = wrong.any(1), truth ^ wrong
        as_given = np.where(wrong, np.where(truth, scores, 1 - scores), 1).min(1)
    else:
        found = _wrong(truth, scores / scores.sum(1, keepdims=True))
        likelier, as_given = scores.argmax(1), scores[np.arange(len(truth)), truth]
    rows = np.flatnonzero(found)
    rows = rows[np.argsort(as_given[rows], kind="stable")]
    spelled = zip(labels.spell(truth[rows]), labels.spell(likelier[rows]), strict=True)
    return [
        {"rank": rank, "id": scored.ids[row], "label": label, "likelier": other,
         "probability": float(as_given[row])}
        for rank, (row, (label, other)) in enumerate(zip(rows, spelled, strict=True), 1)
    ]  # fmt: skip


def _wrong(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which mails are suspected, bool [mails], of int [mails] and float64 [mails, labels]."""
    if len(np.unique(truth)) < 2:  # there is no mail of another label to compare with
        return np.zeros(len(truth), bool)
    from cleanlab.filter import find_label_issues  # seconds to import

    # Of 120 labels planted in 6,046 real mails cleanlab's filter 'confident_learning' lists 105 and
    # 6 others, this one 117 and 13 others; either one 2 where nothing was planted.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the only mail of a label is no suspect
        found: np.ndarray = find_label_issues(
            truth, scores, filter_by="prune_by_noise_rate", n_jobs=1
        )
    return found


def cross_validated(data: DataConfig, home: Home, mails: Mails, stages: Stages) -> Scored:
    """Every usable mail, scored by linear models that have learned from neither it nor its like.

    The scores are the mean of both models of `training.baselines`.

    Raises:
        SourceError: there are too few mails of a label to learn from.
    """
    rows, labels = mails.on("all"), data.label_set
    order = np.random.default_rng(data.seed).permutation(mails.groups.count)
    fold = order[mails.groups.of[rows]] % FOLDS
    has = labels.indicator(mails.labels[rows])
    sample = np.searchsorted(rows, drawn(rows, data.seed))
    _enough(data, has[sample], fold[sample])
    with stages.stage("cross-validation") as stage:
        counted = read(
            data, home, mails, rows[sample],
            lambda done: stage.update(f"{done:,} mails read", done, 2 * len(rows)),
        )  # fmt: skip
        models = []
        for number in range(FOLDS):
            stage.update(f"learning, part {number + 1} of {FOLDS}", len(rows), 2 * len(rows))
            others = np.flatnonzero(fold[sample] != number)
            models.append(learn(counted.take(others), has[sample[others]], labels))
        found = judged(
            data, home, mails, rows, models, fold,
            lambda done: stage.update(f"{done:,} mails", len(rows) + done, 2 * len(rows)),
        )  # fmt: skip
        stage.update(f"{len(rows):,} mails in {FOLDS} parts")
    ids = mails.cache.table()["id"].take(pa.array(rows)).to_pylist()
    mean = np.stack([found[kind] for kind in KINDS]).mean(0)
    return Scored(labels, ids, labels.truth(mails.labels[rows]), mean)


def _enough(data: DataConfig, has: np.ndarray, fold: np.ndarray) -> None:
    """Refuse mails of which a part would be judged by models that know no mail of a label."""
    spread = np.array([(has & (fold == number)[:, None]).any(0) for number in range(FOLDS)]).sum(0)
    if few := data.label_set.of(spread < 2):
        counts = dict(zip(data.labels, has.sum(0).tolist(), strict=True))
        raise SourceError(
            f"data.source: {data.source} has too few mails of {few[0]} to judge others by: "
            f"{counts[few[0]]}, or all alike; more of them are needed, or data.labels without it"
        )


def unseen(bundle: Bundle, home: Home, stages: Stages, *, workers: int = 2) -> Scored:
    """The mails of a model's source that it has not learned from: validation and test.

    Raises:
        SourceError: there are none.
    """
    config = validate(TrainConfig, read_yaml(bundle.path / "config.yaml"))
    mails, _ = survey(config.data, bundle.tokenizer(), home, stages)
    sides = ["test"] if config.data.with_validation else ["validation", "test"]
    rows = np.sort(np.concatenate([mails.on(side) for side in sides]))
    if not len(rows):
        raise SourceError(f"{config.data.source} has no readable mail in {' and '.join(sides)}")
    with stages.stage("evaluation") as stage:
        scored = score(
            bundle.path, mails.cache, rows, bundle.label_set, "auto", workers,
            lambda done: stage.update(f"{done:,} mails", done, len(rows)),
        )  # fmt: skip
        stage.update(f"{len(rows):,} mails of {' and '.join(sides)}")
    return scored


def write(found: list[dict[str, Any]], file: Path) -> None:
    """The whole list as SCHEMA, in CSV where the file's name ends so, else in Parquet."""
    scratch = file.with_name(f".{file.name}.part")
    put = pyarrow.csv.write_csv if file.suffix == ".csv" else pyarrow.parquet.write_table
    put(pa.Table.from_pylist(found, SCHEMA), scratch)
    scratch.replace(file)
