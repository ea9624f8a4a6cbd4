"""The reference: what a model makes of mail like that it was trained on, as counts over bins.

A server compares the mail that it gets with this (`serving.drift`). The mails are those that the
model has not learned from, validation and test together: a comparison is as uncertain as the
smaller side of it, and the checkpoint and the temperature, all that validation decides, move no
mail from bin to bin that could be told from chance.

Scores pile up at 0 and 1, and other hardware or int8 rounds them differently: quantiles there would
be edges that mails stand on. So the edges are probabilities that people know, none nearer to 0 or 1
than a thousandth, and neighbours with too few mails are one bin. Lengths are whole numbers, which
no hardware rounds, in tenths of the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

SCORES: Final = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999)
"""Where bins of scores may part: as many bins as lengths have, since each costs mails."""
SHARE: Final = 0.01
"""Of the reference's mails, which a bin has at least."""
FEWEST: Final = 5
"""Mails of a bin at least, since a chi-square of fewer is none."""
NAMED: Final = 9
"""Labels that have a bin of their own; the rarer ones share the last."""


@dataclass(frozen=True, slots=True)
class Bins:
    """How many mails are in each bin of a number; a bin begins at its edge."""

    edges: tuple[float, ...]
    """Rising; the first bin is all below the first."""
    counts: tuple[int, ...]
    """One more than edges."""
    mean: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1 or list(self.edges) != sorted({*self.edges}):
            raise ValueError(f"bins of {len(self.edges)} edges with {len(self.counts)} counts")
        _check(self.counts)


@dataclass(frozen=True, slots=True)
class Shares:
    """How many mails have each label, by the highest probability."""

    names: tuple[str, ...]
    """The most frequent ones."""
    counts: tuple[int, ...]
    """Of these, and of all others together where there are any."""

    def __post_init__(self) -> None:
        if not 0 <= len(self.counts) - len(self.names) <= 1:
            raise ValueError(f"{len(self.names)} labels with {len(self.counts)} counts")
        _check(self.counts)


@dataclass(frozen=True, slots=True)
class Reference:
    """Scores, lengths and labels of mail that a model has not learned from."""

    splits: tuple[str, ...]
    """Which mails these are."""
    score: Bins
    """Of two labels, one of which a mail has, the probability of the second; else the highest."""
    length: Bins
    """Tokens that the model reads of a mail, special tokens included."""
    label: Shares

    def __post_init__(self) -> None:
        if len({sum(each.counts) for each in (self.score, self.length, self.label)}) != 1:
            raise ValueError("a reference whose counts are not of the same mails")

    @property
    def mails(self) -> int:
        """How many there are."""
        return sum(self.score.counts)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` gave; raises ValueError, KeyError or TypeError."""
        score, length = (
            Bins(tuple(map(float, of["edges"])), tuple(of["counts"]), float(of["mean"]))
            for of in (facts["score"], facts["length"])
        )
        names, counts = (tuple(facts["label"][key]) for key in ("names", "counts"))
        return cls(tuple(facts["splits"]), score, length, Shares(names, counts))


def reference(
    labels: Sequence[str],
    scores: np.ndarray,
    lengths: np.ndarray,
    splits: Sequence[str],
    *,
    multi: bool,
) -> Reference | None:
    """Of calibrated probabilities, float [mails, labels], and lengths, int [mails]; None of none.

    `multi` says whether a mail may have several labels.
    """
    if not len(scores):
        return None
    score = measured(scores, multi=multi)
    tenths = np.quantile(lengths, np.linspace(0.1, 0.9, 9), method="higher")
    best = np.bincount(scores.argmax(1), minlength=len(labels))
    order = np.sort(np.argsort(-best, kind="stable")[:NAMED])
    others = [int(best.sum() - best[order].sum())] if len(labels) > NAMED else []
    return Reference(
        splits=tuple(splits),
        score=_binned(score, SCORES),
        length=_binned(lengths, np.unique(tenths).tolist()),
        label=Shares(tuple(labels[at] for at in order), (*best[order].tolist(), *others)),
    )


def measured(scores: np.ndarray, *, multi: bool) -> np.ndarray:
    """What `Reference.score` counts, of probabilities [mails, labels]; float [mails]."""
    two = scores.shape[1] == 2 and not multi
    chosen: np.ndarray = scores[:, 1] if two else scores.max(1)
    return chosen


def counted(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """How many values are in each bin, int64 [edges + 1]."""
    at = np.searchsorted(np.asarray(edges, np.float64), values.astype(np.float64), side="right")
    return np.bincount(at, minlength=len(edges) + 1)


def _binned(values: np.ndarray, edges: Sequence[float]) -> Bins:
    """Bins with enough mails, as many as there can be; an edge without need falls away."""
    least = max(FEWEST, SHARE * len(values))
    counts = counted(values, edges).tolist()
    kept, merged = [], [counts[0]]
    for edge, count in zip(edges, counts[1:], strict=True):
        if merged[-1] >= least:
            kept.append(edge)
            merged.append(count)
        else:
            merged[-1] += count
    if len(merged) > 1 and merged[-1] < least:
        kept.pop()
        last = merged.pop()
        merged[-1] += last
    return Bins(tuple(kept), tuple(merged), float(values.mean()))


def _check(counts: Sequence[Any]) -> None:
    if not counts or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("counts that are no whole numbers")
