"""Metrics against figures worked out by hand."""

import numpy as np
import pytest

from training.metrics import report, summary


def test_two_labels_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1])
    spam = np.array([0.1, 0.2, 0.9, 0.8, 0.4], np.float32)
    values = summary(truth, np.stack([1 - spam, spam], 1))
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["precision"] == pytest.approx(1 / 2)
    assert values["recall"] == pytest.approx(1 / 2)
    assert values["f1"] == pytest.approx(1 / 2)
    assert values["roc_auc"] == pytest.approx(4 / 6)  # pairs of spam above ham, of six


def test_an_absent_label_leaves_the_auc_undefined() -> None:
    scores = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert np.isnan(summary(np.array([0, 0]), scores)["roc_auc"])


def test_the_confusion_matrix_counts_every_mail() -> None:
    truth = np.array([0, 1, 2, 2])
    scores = np.eye(3, dtype=np.float32)[[0, 2, 2, 1]] * 0.8 + 0.2 / 3
    values = report(truth, scores / scores.sum(1, keepdims=True), ["a", "b", "c"])
    assert values["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert values["mails"] == 4
    assert values["classes"]["c"]["recall"] == pytest.approx(0.5)
