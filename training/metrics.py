"""Metrics of a classification, from the true labels and the scores of every mail."""

from typing import Any

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    log_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from training.curve import Curve
from training.intervals import bootstrap, proportion
from training.labels import THRESHOLD, Labels

_ABOVE = np.nextafter(np.float32(0.5), np.float32(1))
"""Of two labels the first wins a tie."""
RATES = (0.001, 0.005, 0.01)
"""False-positive rates at which the recall is told."""
NAMES = (
    "loss", "accuracy", "precision", "recall", "f1", "roc_auc",
    *(f"recall_at_fpr_{rate:g}" for rate in RATES),
)  # fmt: skip
"""Of what `summary` tells."""


def summary(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall, F1, ROC AUC, log loss, and recall at false-positive rates.

    `truth` is int [mails], `scores` float [mails, labels], rows adding up to 1. Of two labels the
    last is the positive class; of more, precision, recall, F1 (macro) and AUC (one against the
    rest, macro) are means over the labels. AUC is NaN where a label has no mail. The recall at a
    rate is that of the lowest threshold with no higher rate; NaN unless there are two labels, and
    mails of both.

    Where a mail may have several labels, `truth` is bool [mails, labels] and each score stands for
    itself: accuracy is the share of mails with all labels right, the others are means over labels.
    """
    if truth.ndim == 2:
        return _of_several(truth, scores)
    count = scores.shape[1]
    guess = scores.argmax(1)
    average = "binary" if count == 2 else "macro"
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth,
        guess,
        average=average,
        labels=None if count == 2 else range(count),
        zero_division=0.0,
    )
    curves = [Curve.of(truth == label, scores[:, label]) for label in range(count)]
    # float32 rows add up to 1 only within 1e-7, which scikit-learn would remark upon
    exact = scores.astype(np.float64) / scores.astype(np.float64).sum(1, keepdims=True)
    return {
        "accuracy": float((guess == truth).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(np.mean([curve.auc for curve in curves])),
        "loss": float(log_loss(truth, exact, labels=range(count))),
        **_recalls(curves[1] if count == 2 else None),
    }


def _of_several(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    guess = scores >= THRESHOLD
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, average="macro", zero_division=0.0
    )
    curves = [Curve.of(truth[:, i], scores[:, i]) for i in range(truth.shape[1])]
    losses = [
        log_loss(truth[:, i], scores[:, i], labels=(False, True)) for i in range(truth.shape[1])
    ]
    return {
        "accuracy": float((guess == truth).all(1).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(np.mean([curve.auc for curve in curves])),
        "loss": float(np.mean(losses)),
        **_recalls(None),
    }


def _recalls(curve: Curve | None) -> dict[str, float]:
    """The recall at each of RATES."""
    return {
        f"recall_at_fpr_{rate:g}": float("nan") if curve is None else curve.recall_at(rate)
        for rate in RATES
    }


def report(
    truth: np.ndarray, guess: np.ndarray, scores: np.ndarray, labels: Labels
) -> dict[str, Any]:
    """`summary`, the number of mails, figures per class, their averages, the confusion matrix, and
    95% intervals.

    `averages` are over the classes, `macro` each alike and `weighted` by its mails.
    `confusion[i][j]` counts the mails of label i that were taken for label j. Where a mail may
    have several labels, `confusion[i]` is of label i alone: [[true no, false yes], [false no, true
    yes]].
    """
    every = range(len(labels.names))
    per_class = classification_report(
        truth, guess, labels=every, target_names=labels.names, output_dict=True, zero_division=0.0
    )
    if labels.multi:
        matrix = multilabel_confusion_matrix(truth, guess)
    else:
        matrix = confusion_matrix(truth, guess, labels=every)
    has = truth.astype(bool) if labels.multi else truth[:, None] == np.arange(len(labels.names))
    curves = [Curve.of(has[:, i], scores[:, i]) for i in every]
    classes = {
        label: per_class[label] | _ranking(curve)
        for label, curve in zip(labels.names, curves, strict=True)
    }
    right = (truth == guess).all(1) if labels.multi else truth == guess
    values = summary(truth, scores) | {
        "mails": len(truth),
        "classes": classes,
        "averages": {name: per_class[f"{name} avg"] for name in ("macro", "weighted")},
        "confusion": matrix.tolist(),
        "intervals": {"accuracy": proportion(int(right.sum()), len(truth))},
    }
    return values if labels.multi or len(labels.names) != 2 else _of_two(values, curves[1])


def _ranking(curve: Curve) -> dict[str, float]:
    """What a label's scores are worth, whatever the threshold."""
    return {
        "roc_auc": curve.auc,
        "average_precision": curve.average_precision,
        "brier": curve.brier,
        "calibration_error": curve.calibration_error,
    }


def _of_two(values: dict[str, Any], curve: Curve) -> dict[str, Any]:
    """With the figures of the positive label, as spam filters are compared, and their intervals."""
    no, yes = int(curve.no.sum()), int(curve.yes.sum())
    false, true = curve.taken(_ABOVE)
    intervals = values["intervals"] | {
        "precision": proportion(true, true + false),
        "recall": proportion(true, yes),
        "false_positive_rate": proportion(false, no),
        "f1": bootstrap(curve, _f1),
        "roc_auc": bootstrap(curve, lambda drawn: drawn.auc),
    }
    return values | _ranking(curve) | {
        "false_positive_rate": false / no if no else float("nan"),
        "one_minus_auc_percent": 100 * (1 - curve.auc),
        "lam_percent": lam_percent(false, no, yes - true, yes),
        "intervals": intervals,
    }  # fmt: skip


def lam_percent(false: int, no: int, missed: int, yes: int) -> float:
    """Logistic average misclassification, in percent (Cormack and Lynam, TREC 2005 spam track).

    The inverse logit of the mean logit of the shares of good mail taken and of spam missed; 0 where
    one of them is 0, NaN where a side has no mail, or one is 0 and the other 1.
    """
    if not (no and yes):
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(100 * expit((logit(false / no) + logit(missed / yes)) / 2))


def _f1(curve: Curve) -> float:
    false, true = curve.taken(_ABOVE)
    return 2 * true / (true + false + int(curve.yes.sum()))
