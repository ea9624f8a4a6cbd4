"""95% intervals of figures: exact ones of proportions, the bootstrap for the others."""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import stats

from training.curve import Curve

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 1000
_DRAWN: Final = 20_000_000
"""Counts that are drawn at most: of very many distinct scores there are fewer resamples."""
Interval = tuple[float, float]


def proportion(hits: int, of: int) -> Interval:
    """Clopper and Pearson's interval of a proportion; NaN of none."""
    if of == 0:
        return float("nan"), float("nan")
    low, high = stats.binomtest(hits, of).proportion_ci(CONFIDENCE, "exact")
    return float(low), float(high)


def bootstrap(curve: Curve, figure: Callable[[Curve], float], seed: int = 0) -> Interval:
    """The percentile interval of a figure over resamples of each side; NaN where one is empty."""
    if not (curve.yes.any() and curve.no.any()):
        return float("nan"), float("nan")
    chance = np.random.default_rng(seed)
    count = max(100, min(RESAMPLES, _DRAWN // len(curve.scores)))
    found = [figure(curve.resampled(chance)) for _ in range(count)]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
