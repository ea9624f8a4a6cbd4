"""Operating points: thresholds that keep a false-positive rate, with 95% confidence.

Of n validation mails without the label so many may lie above a threshold that, if the true rate
were the point's, fewer would in 5% of all samples at most. How many follows from n alone, before a
score is seen; so the promise is exact whatever the scores are, of mails that come independently of
each other. Near-duplicates do not: on SpamAssassin, whole groups dealt to one side, 90 to 99% of
400 seeds kept the rate on the larger rest (tests/bench/operating_points.py). Where not even none
would do, there is no such point, and it is said how many mails there would have to be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from training.curve import Curve
from training.intervals import proportion

RATES: Final = {"strict": 0.001, "balanced": 0.005, "lenient": 0.01}
"""The false-positive rate of each point."""
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named threshold."""

    name: str
    rate: float
    """The false-positive rate that it keeps."""
    threshold: float | None
    """From which probability a mail has the label; None where too few mails could show it."""
    needed: int
    """Mails without the label that validation must have at least."""
    had: int


def fit(validation: Curve) -> list[OperatingPoint]:
    """The points that these mails can support, and those that they cannot."""
    had = int(validation.no.sum())
    return [
        OperatingPoint(name, rate, _threshold(validation, _allowed(had, rate)), needed(rate), had)
        for name, rate in RATES.items()
    ]


def needed(rate: float) -> int:
    """Mails of which none above the threshold shows that the rate is kept."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def told(points: Sequence[OperatingPoint], mails: Curve) -> list[dict[str, Any]]:
    """What each point did on mails that it was not fitted on."""
    rows = []
    for point in points:
        row: dict[str, Any] = {"name": point.name, "rate": point.rate, "threshold": point.threshold}
        if point.threshold is None:
            row["needed"], row["had"] = point.needed, point.had
        else:
            false, true = mails.taken(point.threshold)
            no, yes = int(mails.no.sum()), int(mails.yes.sum())
            row |= {"false": false, "no": no, "true": true, "yes": yes}
            row |= {"false_positive_rate": false / no if no else math.nan,
                    "recall": true / yes if yes else math.nan}  # fmt: skip
            row["intervals"] = {
                "false_positive_rate": proportion(false, no), "recall": proportion(true, yes),
            }  # fmt: skip
        rows.append(row)
    return rows


def _allowed(had: int, rate: float) -> int:
    """How many of so many mails may lie above the threshold; -1 where not even none would do."""
    most = int(stats.binom.ppf(1 - CONFIDENCE, had, rate))
    return most if stats.binom.cdf(most, had, rate) <= 1 - CONFIDENCE else most - 1


def _threshold(curve: Curve, allowed: int) -> float | None:
    """The lowest threshold above which there are at most so many mails without the label."""
    if allowed < 0:
        return None
    above = np.cumsum(curve.no[::-1])[::-1]  # at each score, mails at it and higher
    kept = curve.scores[above <= allowed]
    lowest = kept[0] if len(kept) else np.nextafter(np.float32(1), np.float32(2))
    below = curve.scores[curve.scores < lowest]
    if not len(below):
        return float(lowest)
    # Between the two scores: another machine's rounding must not move a mail across it.
    middle = np.float32((float(lowest) + float(below[-1])) / 2)
    return float(middle if middle > below[-1] else lowest)
