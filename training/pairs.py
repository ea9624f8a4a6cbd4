"""Pairs: two models asked about the same mails, none of which either was trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from training.bundle import Bundle, BundleError
from training.config import DataConfig
from training.evaluation import Scored, data_of, scored_on
from training.home import Home
from training.labels import Labels
from training.mails import Mails, survey
from training.scorer import Precision
from training.sources import SourceError
from training.stages import Stages

Side = Literal["validation", "test"]


def check(a: Bundle, b: Bundle) -> None:
    """Refuse models that answer different questions.

    Raises:
        BundleError: they have different labels.
    """
    if set(a.labels) != set(b.labels) or a.head.multi != b.head.multi:
        raise BundleError(
            f"models with different labels cannot be compared: {_called(a)} and {_called(b)}"
        )


def score_both(
    a: Bundle,
    b: Bundle,
    home: Home,
    stages: Stages,
    *,
    source: str | None = None,
    split: Side = "test",
    precision: Precision = "auto",
    workers: int = 2,
) -> tuple[Scored, Scored]:
    """What two models make of the same mails, labels in the order of the first.

    The mails are those on the asked side of both models' splits, or with `source` all of another
    source; of a model's own source always those on the asked side alone.

    Raises:
        BundleError: the models have different labels.
        SourceError: there are no such mails.
    """
    check(a, b)
    first, rows = allowed(a, home, stages, source, split)
    second, others = allowed(b, home, stages, source, split)
    # A source has the same rows in the same order whatever a model reads of them.
    if not first.cache.table()["id"].equals(second.cache.table()["id"]):
        raise SourceError(
            f"{a.path} was trained on {data_of(a).source}, {b.path} on {data_of(b).source}: "
            "name other mails with --source"
            if source is None
            else f"{source} has changed while it was read; start again"
        )
    common = np.intersect1d(rows, others)
    if not len(common):
        raise SourceError(_no_mail(a, b, split))
    if len(common) < max(len(rows), len(others)):
        stages.note(
            f"the models may be asked about {len(rows):,} and {len(others):,} {split} mails, "
            f"{len(common):,} of them the same: these are compared"
        )
    one = scored_on(a, first, common, stages, precision, workers)
    if a.path.resolve() == b.path.resolve():
        return one, one
    return one, _ordered(scored_on(b, second, common, stages, precision, workers), one.labels)


def thresholds(a: Bundle, b: Bundle) -> dict[str, tuple[float, float]]:
    """Both models' thresholds of each operating point that both have, of the same label."""
    if a.labels != b.labels:
        return {}
    of_b = {point.name: point.threshold for point in b.points}
    pairs = [(point.name, point.threshold, of_b.get(point.name)) for point in a.points]
    return {
        name: (one, other) for name, one, other in pairs if one is not None and other is not None
    }


def _called(bundle: Bundle) -> str:
    return f"{bundle.path} ({'any of ' if bundle.head.multi else ''}{', '.join(bundle.labels)})"


def allowed(
    bundle: Bundle, home: Home, stages: Stages, source: str | None, split: Side
) -> tuple[Mails, np.ndarray]:
    """A source's mails, and the rows that a model may be asked about."""
    data = data_of(bundle)
    own = source is None or same(source, data.source)
    mails, _ = survey(data if own else data_of(bundle, source), bundle.tokenizer(), home, stages)
    rows = mails.on(split if own else "all")
    return mails, rows[:0] if own and trained_on(data, split) else rows


def same(one: str, other: str) -> bool:
    """Whether two spellings name one source."""
    return one == other or (Path(one).exists() and Path(one).resolve() == Path(other).resolve())


def trained_on(data: DataConfig, split: str) -> bool:
    """Whether a model has learned from mails of a split."""
    held_out = split == "test" or (split == "validation" and not data.with_validation)
    return not held_out


def _no_mail(a: Bundle, b: Bundle, split: Side) -> str:
    for bundle in (a, b):
        if trained_on(data_of(bundle), split):
            return f"{bundle.path} was trained on its validation mails too: take --split test"
    return (
        f"no mail is on the {split} side of both {a.path} and {b.path}: "
        "name other mails with --source"
    )


def _ordered(scored: Scored, labels: Labels) -> Scored:
    """The same with the labels in another order."""
    if scored.labels.names == labels.names:
        return scored
    at = [scored.labels.names.index(name) for name in labels.names]
    truth = scored.truth[:, at] if labels.multi else np.argsort(at)[scored.truth]
    return replace(scored, labels=labels, truth=truth, scores=scored.scores[:, at])
