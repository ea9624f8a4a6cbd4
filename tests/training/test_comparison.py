"""Comparison: known values, equal models, and what a better one must show."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from training import resampling
from training.comparison import answer, compare, mcnemar
from training.evaluation import Scored
from training.labels import Labels
from training.resampling import Figures, resamples


def _scored(spam: np.ndarray, truth: np.ndarray) -> Scored:
    scores = np.stack([1 - spam, spam], 1).astype(np.float32)
    ids = [f"m{at}" for at in range(len(truth))]
    return Scored(Labels(("ham", "spam")), ids, truth.astype(np.int64), scores)


def _pair(mails: int, seed: int, better: float = 0.0) -> tuple[Scored, Scored]:
    """Two models that err on other mails; the first one's spam lies so much higher."""
    chance = np.random.default_rng(seed)
    truth = chance.random(mails) < 0.4
    logits = np.where(truth, 1.2, -1.2) + chance.normal(0, 1, mails)
    one, other = (logits + chance.normal(0, 1, mails) for _ in range(2))
    return _scored(expit(one + better * truth), truth), _scored(expit(other), truth)


def _rows(values: dict[str, Any]) -> dict[str, Any]:
    return {row["figure"]: row for row in values["figures"]}


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (5, 0, 0.0625), (10, 3, 0.09228515625), (6, 16, 0.052478790283), (4, 4, 1.0)],
)
def test_mcnemars_exact_test_has_the_known_values(only_a: int, only_b: int, p: float) -> None:
    a = np.repeat([True, True, False, False], [30, only_a, only_b, 2])
    b = np.repeat([True, False, True, False], [30, only_a, only_b, 2])
    assert mcnemar(a, b) == {
        "both_right": 30, "only_a": only_a, "only_b": only_b, "both_wrong": 2,
        "p": pytest.approx(p, abs=1e-12),
    }  # fmt: skip


def test_a_model_is_no_better_than_itself() -> None:
    a, _ = _pair(300, 0)
    values = compare(a, a, {"lenient": (0.9, 0.9)})
    rows = values["figures"] + values["points"][0]["figures"]
    assert len(rows) == 9
    for row in rows:
        assert (row["difference"], row["interval"], row["p"], row["better"]) == (
            0.0, [0.0, 0.0], 1.0, None,
        )  # fmt: skip
    assert (values["mcnemar"]["only_a"], values["mcnemar"]["only_b"]) == (0, 0)
    assert values["changed"] == []
    assert answer(values, "A", "B").startswith("Not shown: on these 300 mails A and B differ")


def test_intervals_of_equal_models_hold_the_true_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 200 pairs of equally good models 190 are 95%, give or take three standard errors of 3."""
    monkeypatch.setattr(resampling, "RESAMPLES", 400)
    held = dict.fromkeys(("accuracy", "f1", "roc_auc", "recall_at_fpr_0.01", "loss", "brier"), 0)
    answered = 0
    for seed in range(200):
        values = compare(*_pair(200, seed))
        rows = _rows(values)
        for name in held:
            low, high = rows[name]["interval"]
            held[name] += low <= 0 <= high
        answered += not answer(values, "A", "B").startswith("Not shown")
    assert all(count >= 181 for count in held.values()), held
    assert held["roc_auc"] <= 198, "an interval that is never left is too wide"
    assert answered <= 19


def test_mcnemars_exact_test_finds_a_difference_in_equal_models_seldom() -> None:
    chance = np.random.default_rng(0)
    right = [mcnemar(*(chance.random((2, 200)) < 0.85))["p"] <= 0.05 for _ in range(2000)]
    assert 0.02 < np.mean(right) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_better_model_is_told_from_the_other_in_either_order() -> None:
    a, b = _pair(1500, 0, better=1.0)
    rows = _rows(compare(a, b))
    assert rows["roc_auc"]["better"] == rows["loss"]["better"] == "A"
    assert rows["roc_auc"]["difference"] > 0 > rows["loss"]["difference"]
    assert answer(compare(a, b), "new", "old").startswith("Yes: on these 1,500 mails new is better")
    assert answer(compare(b, a), "old", "new").startswith("No: on these 1,500 mails new is better")


def test_a_handful_of_changed_verdicts_makes_no_model_better() -> None:
    """Four mails right with one alone: the bootstrap's interval leaves 0 out, p is 0.125."""
    truth = np.repeat([0, 1], [100, 100])
    right = np.where(truth == 1, 0.9, 0.1)
    wrong = right.copy()
    wrong[:4] = 0.6
    row = _rows(compare(_scored(right, truth), _scored(wrong, truth)))["accuracy"]
    assert row["interval"][0] > 0
    assert row["p"] == 0.125
    assert row["better"] is None


def test_figures_of_counts_are_those_of_the_report() -> None:
    chance = np.random.default_rng(0)
    a, _ = _pair(301, 1)
    three = chance.dirichlet([1, 1, 1], 301).astype(np.float32)
    several = chance.random((301, 3)).round(2).astype(np.float32)
    cases = [
        a,
        *(_scored(a.scores[a.truth == side, 1], a.truth[a.truth == side]) for side in (0, 1)),
        Scored(Labels(("a", "b", "c")), a.ids, chance.integers(0, 3, 301), three),
        Scored(Labels(("a", "b", "c"), multi=True), a.ids, chance.random((301, 3)) < 0.4, several),
    ]
    for scored in cases:
        report = scored.report()
        found = Figures(scored).of(np.ones((1, len(scored.ids))))
        assert len(found) == (7 if len(scored.labels.names) == 2 else 5)
        for name, value in found.items():
            briers = [row["brier"] for row in report["classes"].values()]
            expected = np.mean(briers) if name == "brier" else report[name]
            limit = 1e-6 if name == "loss" else 1e-9
            assert value[0] == pytest.approx(expected, abs=limit, nan_ok=True), name


def test_counts_of_mails_are_worth_the_mails_repeated() -> None:
    a, _ = _pair(60, 2)
    counts = next(resamples(a.truth))[:1]
    rows = np.repeat(np.arange(60), counts[0].astype(int))
    again = Figures(Scored(a.labels, a.ids, a.truth[rows], a.scores[rows])).of(np.ones((1, 60)))
    for name, value in Figures(a).of(counts).items():
        assert value[0] == pytest.approx(again[name][0], abs=1e-12), name
    drawn = np.concatenate(list(resamples(a.truth)))
    assert drawn.shape == (2000, 60)
    assert (drawn[:, a.truth == 1].sum(1) == (a.truth == 1).sum()).all()


def test_mails_that_changed_sides_are_ranked_by_their_change() -> None:
    truth = np.array([0, 0, 1, 1, 1])
    a = _scored(np.array([0.6, 0.1, 0.9, 0.3, 0.2]), truth)
    b = _scored(np.array([0.4, 0.1, 0.2, 0.4, 0.8]), truth)
    values = compare(a, b)
    assert [(row["id"], row["right"]) for row in values["changed"]] == [
        ("m2", "A"), ("m4", "B"), ("m0", "B"),
    ]  # fmt: skip
    first = values["changed"][0]
    assert (first["label"], first["predicted_a"], first["predicted_b"]) == ("spam", "spam", "ham")
    assert (first["p_a"], first["p_b"]) == pytest.approx((0.9, 0.2))
    assert values["mcnemar"]["both_wrong"] == 1


def test_one_class_alone_is_compared_by_what_it_has() -> None:
    truth = np.zeros(50, np.int64)
    a, b = (_scored(np.random.default_rng(seed).random(50), truth) for seed in (0, 1))
    values = compare(a, b, {"lenient": (0.99, 0.99)})
    rows = _rows(values)
    assert np.isnan([rows["roc_auc"]["a"], *rows["roc_auc"]["interval"]]).all()
    assert rows["roc_auc"]["better"] is None
    assert np.isfinite(rows["loss"]["interval"]).all()
    assert "ROC AUC" not in answer(values, "A", "B")


def test_models_with_several_labels_are_compared() -> None:
    chance = np.random.default_rng(0)
    labels = Labels(("work", "urgent"), multi=True)
    truth = chance.random((400, 2)) < 0.5
    ids = [f"m{at}" for at in range(400)]
    good, poor = (
        Scored(labels, ids, truth, expit(np.where(truth, by, -by) + noise).astype(np.float32))
        for by, noise in ((2, chance.normal(0, 1, (400, 2))), (1, chance.normal(0, 1, (400, 2))))
    )
    values = compare(good, poor)
    assert {row["better"] for row in values["figures"]} == {"A"}
    assert sum(values["mcnemar"][key] for key in ("only_a", "only_b")) == len(values["changed"])
