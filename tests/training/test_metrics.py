"""Metrics against figures worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from training.labels import Labels
from training.metrics import RATES, lam_percent, report, summary


def test_two_labels_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1])
    spam = np.array([0.1, 0.2, 0.9, 0.8, 0.4], np.float32)
    values = summary(truth, np.stack([1 - spam, spam], 1))
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["precision"] == pytest.approx(1 / 2)
    assert values["recall"] == pytest.approx(1 / 2)
    assert values["f1"] == pytest.approx(1 / 2)
    assert values["roc_auc"] == pytest.approx(4 / 6)  # pairs of spam above ham, of six


def test_recall_at_a_false_positive_rate_by_hand() -> None:
    """Of 200 ham mails one may be taken for spam at 0.5%, two at 1%, none at 0.1%."""
    ham = np.full(200, 0.1)
    ham[:3] = 0.95, 0.85, 0.75
    spam = np.array([0.99, 0.9, 0.8, 0.7])
    scores = np.concatenate([ham, spam])
    truth = np.repeat([0, 1], [200, 4])
    values = summary(truth, np.stack([1 - scores, scores], 1))
    recalls = [values[f"recall_at_fpr_{rate:g}"] for rate in RATES]
    assert recalls == [1 / 4, 2 / 4, 3 / 4]
    assert np.isnan(summary(truth[:200], np.stack([1 - ham, ham], 1))["recall_at_fpr_0.001"])


def test_an_absent_label_leaves_the_auc_undefined() -> None:
    scores = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert np.isnan(summary(np.array([0, 0]), scores)["roc_auc"])


def test_the_confusion_matrix_counts_every_mail() -> None:
    truth = np.array([0, 1, 2, 2])
    scores = np.eye(3, dtype=np.float32)[[0, 2, 2, 1]] * 0.8 + 0.2 / 3
    scores /= scores.sum(1, keepdims=True)
    values = report(truth, scores.argmax(1), scores, Labels(("a", "b", "c")))
    assert values["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert values["mails"] == 4
    assert values["classes"]["c"]["recall"] == pytest.approx(0.5)


def test_several_labels_by_hand() -> None:
    labels = Labels(("work", "urgent"), multi=True)
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    scores = np.array([[0.9, 0.8], [0.4, 0.1], [0.2, 0.5], [0.1, 0.6]], np.float32)
    values = report(truth, labels.guess(scores), scores, labels)
    assert values["accuracy"] == 2 / 4  # the first and the third have both labels right
    assert values["precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert values["recall"] == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert values["roc_auc"] == pytest.approx((4 / 4 + 3 / 4) / 2)
    right = np.where(truth, scores, 1 - scores)
    assert values["loss"] == pytest.approx(-np.log(right).mean())
    assert values["confusion"] == [[[2, 0], [1, 1]], [[1, 1], [0, 2]]]
    assert values["classes"]["urgent"]["precision"] == pytest.approx(2 / 3)


def test_a_label_that_all_mails_have_leaves_the_auc_undefined() -> None:
    values = summary(np.array([[1, 1], [1, 0]], bool), np.array([[0.9, 0.1], [0.3, 0.7]]))
    assert np.isnan(values["roc_auc"])


def test_two_labels_have_the_figures_of_spam_filters_and_their_intervals() -> None:
    """Of 100 ham mails one is taken, of 50 spam mails five are missed."""
    spam = np.concatenate([np.full(99, 0.1), [0.9], np.full(5, 0.2), np.full(45, 0.8)])
    scores = np.stack([1 - spam, spam], 1)
    truth = np.repeat([0, 1], [100, 50])
    values = report(truth, scores.argmax(1), scores, Labels(("ham", "spam")))
    assert values["false_positive_rate"] == pytest.approx(0.01)
    assert values["one_minus_auc_percent"] == pytest.approx(100 * (1 - values["roc_auc"]))
    odds = np.sqrt((0.01 / 0.99) * (0.1 / 0.9))
    assert values["lam_percent"] == pytest.approx(100 * odds / (1 + odds))
    for name, (low, high) in values["intervals"].items():
        assert low < values[name] < high, name
    assert lam_percent(0, 10, 1, 10) == 0.0
    assert np.isnan(lam_percent(0, 10, 10, 10))


@pytest.mark.parametrize("multi", [False, True])
def test_three_labels_agree_with_scikit_learn(multi: bool) -> None:
    chance = np.random.default_rng(0)
    labels = Labels(("a", "b", "c"), multi)
    scores = chance.dirichlet([1, 1, 1], 1001).round(2)
    scores = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    truth = chance.random((1001, 3)) < 0.2 + 0.5 * scores
    if not multi:
        truth = (scores + chance.normal(0, 0.4, (1001, 3))).argmax(1)
    has = truth if multi else truth[:, None] == np.arange(3)
    guess = labels.guess(scores)
    values = report(truth, guess, scores, labels)
    names = ("precision", "recall", "f1-score")
    for average, found in (
        *((name, values["averages"][name]) for name in ("macro", "weighted")),
        (None, {name: [values["classes"][label][name] for label in "abc"] for name in names}),
    ):
        expected = sk.precision_recall_fscore_support(truth, guess, average=average)
        for name, value in zip(names, expected, strict=False):
            assert found[name] == pytest.approx(value, abs=1e-9)
    for label, of_label, column in zip("abc", has.T, scores.T, strict=True):
        row = values["classes"][label]
        assert row["roc_auc"] == pytest.approx(sk.roc_auc_score(of_label, column), abs=1e-9)
        expected = sk.average_precision_score(of_label, column)
        assert row["average_precision"] == pytest.approx(expected, abs=1e-9)
        exact = column.astype(np.float64)
        assert row["brier"] == pytest.approx(sk.brier_score_loss(of_label, exact), abs=1e-9)
    macro = sk.roc_auc_score(has, scores, average="macro")
    assert values["roc_auc"] == pytest.approx(macro, abs=1e-9)
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess), abs=1e-9)
    assert values["averages"]["macro"]["f1-score"] == pytest.approx(values["f1"], abs=1e-9)
