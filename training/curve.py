"""A label's scores as counts, which can be merged: every figure of it follows from them exactly.

    curve = Curve.of(truth, scores) + Curve.of(others_truth, others_scores)
    curve.auc, curve.recall_at(0.005), curve.brier

One row for each distinct float32 score, with the mails that have the label and those that have it
not. Shards of an evaluation are counted apart and added up; means of batches are never taken.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

_TOLD: Final = 400
"""Corners of a curve that are told; half of them the first ones, where false positives are few."""


@dataclass(frozen=True)
class Curve:
    """Counts at each distinct score."""

    scores: np.ndarray
    """float32 [distinct], rising"""
    yes: np.ndarray
    """int64 [distinct], mails that have the label"""
    no: np.ndarray
    """int64 [distinct], mails that have it not"""

    @classmethod
    def of(cls, truth: np.ndarray, scores: np.ndarray) -> "Curve":
        """Of bool [mails] and float [mails], probabilities of the label.

        Raises:
            ValueError: a score is no number, or no probability.
        """
        scores = np.asarray(scores, np.float32)
        wrong = ~((scores >= 0) & (scores <= 1))
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(scores)} scores are no probabilities, the first "
                f"{scores[wrong][0]}"
            )
        distinct, at = np.unique(scores, return_inverse=True)
        yes = np.bincount(at[truth], minlength=len(distinct))
        return cls(distinct, yes, np.bincount(at, minlength=len(distinct)) - yes)

    def __add__(self, other: "Curve") -> "Curve":
        distinct = np.union1d(self.scores, other.scores)
        yes, no = np.zeros((2, len(distinct)), np.int64)
        for part in (self, other):
            at = np.searchsorted(distinct, part.scores)
            yes[at] += part.yes
            no[at] += part.no
        return Curve(distinct, yes, no)

    @property
    def mails(self) -> int:
        """How many were counted."""
        return int(self.yes.sum() + self.no.sum())

    @cached_property
    def roc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """False-positive rate, recall and threshold, from no mail taken to all; NaN if absent."""
        with np.errstate(invalid="ignore", divide="ignore"):
            taken_no = np.concatenate([[0], np.cumsum(self.no[::-1])])
            taken_yes = np.concatenate([[0], np.cumsum(self.yes[::-1])])
            rates = taken_no / self.no.sum(), taken_yes / self.yes.sum()
        return *rates, np.concatenate([[np.inf], self.scores[::-1]])

    @property
    def auc(self) -> float:
        """Of the ROC curve: the chance that a mail with the label has the higher score."""
        false, true, _ = self.roc
        return float(np.trapezoid(true, false))

    @property
    def average_precision(self) -> float:
        """The area under precision against recall, as steps."""
        yes, no = np.cumsum(self.yes[::-1]), np.cumsum(self.no[::-1])
        if not yes[-1:].any():
            return float("nan")
        recall = np.concatenate([[0], yes / yes[-1]])
        return float(np.sum(np.diff(recall) * (yes / (yes + no))))

    def recall_at(self, rate: float) -> float:
        """The highest recall at no more than a false-positive rate; NaN where one side is empty."""
        false, true, _ = self.roc
        within = true[false <= rate]
        return float(within.max()) if len(within) else float("nan")

    def resampled(self, chance: np.random.Generator) -> "Curve":
        """As many mails of each side, drawn from these with replacement."""
        drawn = [
            chance.multinomial(side.sum(), side / side.sum()) if side.any() else side
            for side in (self.yes, self.no)
        ]
        return Curve(self.scores, *drawn)

    def taken(self, threshold: float) -> tuple[int, int]:
        """Mails without and with the label whose score is at least a threshold."""
        above = self.scores >= np.float32(threshold)
        return int(self.no[above].sum()), int(self.yes[above].sum())

    @property
    def brier(self) -> float:
        """The mean squared distance of score and truth."""
        scores = self.scores.astype(np.float64)
        squares = self.yes * (1 - scores) ** 2 + self.no * scores**2
        return float(squares.sum() / self.mails)

    def calibration(self, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of equal ranges of score: mean score, share that has the label, mails."""
        place = np.minimum((self.scores.astype(np.float64) * bins).astype(int), bins - 1)
        each = self.yes + self.no
        mails = np.bincount(place, each, bins)
        with np.errstate(invalid="ignore"):
            said = np.bincount(place, each * self.scores.astype(np.float64), bins) / mails
            true = np.bincount(place, self.yes, bins) / mails
        return said, true, mails

    @property
    def calibration_error(self) -> float:
        """The expected calibration error (ECE): the mean distance of score and share."""
        said, true, mails = self.calibration()
        return float(np.nansum(np.abs(said - true) * mails) / mails.sum())

    def told(self) -> dict[str, Any]:
        """As plain values, to draw it: a few kilobytes, and exact for up to 400 corners.

        `yes` and `no` count the mails. `roc` has [mails without the label, mails with it, threshold
        or None] of those taken, a row for each corner of the ROC curve; `calibration` has [mean
        score, share that has the label, mails] of each tenth that has mails.
        """
        thresholds = self.roc[2]
        no = np.concatenate([[0], np.cumsum(self.no[::-1])])
        yes = np.concatenate([[0], np.cumsum(self.yes[::-1])])
        # Where the direction changes; the ends are corners.
        bent = np.diff(no)[1:] * np.diff(yes)[:-1] != np.diff(no)[:-1] * np.diff(yes)[1:]
        corners = np.flatnonzero(np.concatenate([[True], bent, [True]]))
        if len(corners) > _TOLD:
            half = _TOLD // 2
            spread = np.linspace(half, len(corners) - 1, half).astype(int)
            corners = corners[np.concatenate([np.arange(half), spread])]
        said, true, mails = self.calibration(10)
        return {
            "yes": int(yes[-1]),
            "no": int(no[-1]),
            "roc": [
                [int(no[at]), int(yes[at]), float(thresholds[at]) if at else None] for at in corners
            ],
            "calibration": [
                [float(said[at]), float(true[at]), int(mails[at])] for at in np.flatnonzero(mails)
            ],
        }
