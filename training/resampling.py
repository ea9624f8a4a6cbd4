"""Resamples of mails, and the figures of a model on each of them: what paired intervals come from.

A resample is a count for each mail, so a figure of all resamples is a product of matrices or a
cumulated sum, and two models whose figures come from the same counts are compared in pairs.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from training.evaluation import Scored

RESAMPLES: Final = 2000
_DRAWN: Final = 100_000_000
"""Counts that are drawn at most: of very many mails there are fewer resamples."""
_FEWEST: Final = 200
_AT_ONCE: Final = 2_000_000
"""Counts that are held at a time."""
RATES: Final = (0.005, 0.01)
"""False-positive rates at which the recall is compared."""


def resamples(strata: np.ndarray, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each mail was drawn, float64 [some resamples, mails]; as many of each stratum.

    `strata` is int [mails]. There are RESAMPLES in all, fewer of very many mails.
    """
    mails = len(strata)
    chance = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    left = max(_FEWEST, min(RESAMPLES, _DRAWN // mails))
    while left:
        some = min(left, max(1, _AT_ONCE // mails))
        counts = np.zeros((some, mails))
        for rows in members:
            drawn = chance.integers(0, len(rows), (some, len(rows)))
            drawn += np.arange(some)[:, None] * len(rows)
            flat = np.bincount(drawn.ravel(), minlength=some * len(rows))
            counts[:, rows] = flat.reshape(some, -1)
        yield counts
        left -= some


class Figures:
    """The figures of a model's scores, of mails that count as often as they are told to.

    Those that `training.metrics` gives, by the same names; `brier` is a mean over the labels.
    """

    def __init__(self, scored: Scored, thresholds: Mapping[str, float] | None = None) -> None:
        """With `thresholds`, of two labels, the recall and the false-positive rate of each too."""
        labels, scores = scored.labels, scored.scores.astype(np.float64)
        several = labels.multi
        has = scored.truth if several else scored.truth[:, None] == np.arange(len(labels.names))
        guess = labels.guess(scored.scores)
        taken = guess if several else guess[:, None] == np.arange(len(labels.names))
        self.right: np.ndarray = (
            (guess == scored.truth).all(1) if several else guess == scored.truth
        )
        """bool [mails], the model's verdict is the true one"""
        self.means = np.stack(
            [self.right, _loss(has, scores, several=several), ((scores - has) ** 2).mean(1)], 1
        )
        chosen = slice(None) if several or len(labels.names) != 2 else slice(1, None)
        self.has, self.taken = (part[:, chosen].astype(np.float64) for part in (has, taken))
        self.rankings = [
            _Ranking(has[:, i], scored.scores[:, i]) for i in range(len(labels.names))[chosen]
        ]
        self.rates = RATES if chosen.start else ()
        self.above = {
            name: (scored.scores[:, 1] >= np.float32(at)).astype(np.float64)
            for name, at in (thresholds or {}).items()
        }

    def of(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Each figure, float64 [resamples], of counts [resamples, mails]; NaN without a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = counts @ self.means / counts.sum(1, keepdims=True)
            both, size = counts @ (self.has * self.taken), counts @ (self.has + self.taken)
            ranked = [ranking.of(counts, self.rates) for ranking in self.rankings]
            found = {
                "accuracy": means[:, 0],
                "f1": np.where(size > 0, 2 * both / size, 0.0).mean(1),
                "roc_auc": np.mean([auc for auc, _ in ranked], axis=0),
                **dict(
                    zip(map("recall_at_fpr_{:g}".format, self.rates), ranked[0][1], strict=True)
                ),
                "loss": means[:, 1],
                "brier": means[:, 2],
            }
            for name, above in self.above.items():
                yes = self.has[:, 0]
                found[f"{name}/false_positive_rate"] = (
                    counts @ (above * (1 - yes)) / (counts @ (1 - yes))
                )
                found[f"{name}/recall"] = counts @ (above * yes) / (counts @ yes)
        return found


def _loss(has: np.ndarray, scores: np.ndarray, *, several: bool) -> np.ndarray:
    """The log loss of each mail, with the limits that scikit-learn has."""
    if several:
        limit = float(np.finfo(np.float32).eps)
        right = np.clip(np.where(has, scores, 1 - scores), limit, 1 - limit)
        return np.asarray(-np.log(right).mean(1))
    limit = float(np.finfo(np.float64).eps)
    of_truth = (scores / scores.sum(1, keepdims=True))[has]  # one a row
    return np.asarray(-np.log(np.clip(of_truth, limit, 1 - limit)))


class _Ranking:
    """The order of the mails by the score of one label, equal scores together."""

    def __init__(self, has: np.ndarray, scores: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.has = has[self.order].astype(np.float64)
        falling = scores[self.order]
        self.ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], [True]))

    def of(
        self, counts: np.ndarray, rates: tuple[float, ...]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """ROC AUC, and the highest recall at no more than each false-positive rate."""
        sorted_ = counts[:, self.order]
        yes = np.cumsum(sorted_ * self.has, 1)[:, self.ends]
        no = np.cumsum(sorted_, 1)[:, self.ends] - yes
        start = np.zeros((len(counts), 1))
        true = np.concatenate([start, yes / yes[:, -1:]], 1)
        false = np.concatenate([start, no / no[:, -1:]], 1)
        auc: Any = np.trapezoid(true, false, axis=1)
        unknown = np.where((no[:, -1] > 0) & (yes[:, -1] > 0), 0.0, np.nan)
        return auc, [np.where(false <= rate, true, 0.0).max(1) + unknown for rate in rates]
