"""Calibration: one temperature that makes a model's probabilities honest (Guo et al., 2017).

It is fitted on the validation mails and kept in the bundle. It changes no order of scores, and so
no ranking; of two labels not even a verdict.
"""

from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

SMALLEST: Final = 1e-12
"""A probability that float32 gives as 0 is taken for this."""
RANGE: Final = (0.05, 20.0)
"""Of the temperature: of mails that are all told rightly the likelihood has no highest point."""


def temperature(truth: np.ndarray, scores: np.ndarray) -> float:
    """The temperature with the highest likelihood; 1 where there is no mail.

    `truth` is int [mails], or bool [mails, labels] where a mail may have several; `scores` are
    probabilities, float [mails, labels].
    """
    if not len(truth):
        return 1.0

    def loss(log_temperature: float) -> float:
        heat = float(np.exp(log_temperature))
        if truth.ndim == 2:
            right = np.where(truth, 1, -1) * _logits(scores, multi=True) / heat
            return float(np.logaddexp(0, -right).mean())
        logs = log_softmax(_logits(scores, multi=False) / heat, axis=1)
        return float(-logs[np.arange(len(truth)), truth].mean())

    low, high = np.log(RANGE)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def calibrated(scores: np.ndarray, heat: float, *, multi: bool) -> np.ndarray:
    """Probabilities at a temperature, float32 [mails, labels]; at 1 the same ones."""
    if heat == 1.0 or not len(scores):
        return scores
    logits = _logits(scores, multi=multi) / heat
    made: np.ndarray = expit(logits) if multi else softmax(logits, axis=1)
    return made.astype(np.float32)


def _logits(scores: np.ndarray, *, multi: bool) -> np.ndarray:
    exact = np.clip(scores.astype(np.float64), SMALLEST, 1 - SMALLEST if multi else 1.0)
    logits: np.ndarray = logit(exact) if multi else np.log(exact)
    return logits
