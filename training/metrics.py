"""Metrics of a classification, from the true labels and the scores of every mail."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    log_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from training.labels import THRESHOLD, Labels

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
    complete = len(np.unique(truth)) == count
    auc = float("nan")
    if complete:
        auc = roc_auc_score(truth, scores[:, 1] if count == 2 else scores, multi_class="ovr")
    # float32 rows add up to 1 only within 1e-7, which scikit-learn would remark upon
    exact = scores.astype(np.float64) / scores.astype(np.float64).sum(1, keepdims=True)
    return {
        "accuracy": float((guess == truth).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(auc),
        "loss": float(log_loss(truth, exact, labels=range(count))),
        **_recalls(truth, scores[:, 1] if complete and count == 2 else None),
    }


def _of_several(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    guess = scores >= THRESHOLD
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, guess, average="macro", zero_division=0.0
    )
    some = truth.any(0) & ~truth.all(0)
    auc = roc_auc_score(truth, scores, average="macro") if some.all() else float("nan")
    losses = [
        log_loss(truth[:, i], scores[:, i], labels=(False, True)) for i in range(truth.shape[1])
    ]
    return {
        "accuracy": float((guess == truth).all(1).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "roc_auc": float(auc),
        "loss": float(np.mean(losses)),
        **_recalls(truth, None),
    }


def _recalls(truth: np.ndarray, scores: np.ndarray | None) -> dict[str, float]:
    """The recall at each of RATES, as points of the ROC curve give it, none in between."""
    if scores is None:
        return {f"recall_at_fpr_{rate:g}": float("nan") for rate in RATES}
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {f"recall_at_fpr_{rate:g}": float(true[false <= rate].max()) for rate in RATES}


def report(
    truth: np.ndarray, guess: np.ndarray, scores: np.ndarray, labels: Labels
) -> dict[str, Any]:
    """`summary`, the number of mails, figures per class, and the confusion matrix.

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
    return summary(truth, scores) | {
        "mails": len(truth),
        "classes": {label: per_class[label] for label in labels.names},
        "confusion": matrix.tolist(),
    }
