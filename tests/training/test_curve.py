"""Figures from counts: as scikit-learn has them, however the mails were sharded."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from training.curve import Curve
from training.intervals import bootstrap, proportion


def _mails(count: int, seed: int, digits: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores, of few `digits` with many ties."""
    chance = np.random.default_rng(seed)
    truth = chance.random(count) < 0.3
    scores = 1 / (1 + np.exp(-chance.normal(np.where(truth, 1.5, -1.5), 1.5)))
    return truth, np.round(scores, digits).astype(np.float32)


@pytest.mark.parametrize("digits", [1, 3, 7])
def test_figures_agree_with_scikit_learn(digits: int) -> None:
    truth, scores = _mails(1001, 0, digits)
    curve = Curve.of(truth, scores)
    exact = scores.astype(np.float64)
    assert curve.auc == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-9)
    expected = sk.average_precision_score(truth, scores)
    assert curve.average_precision == pytest.approx(expected, abs=1e-9)
    assert curve.brier == pytest.approx(sk.brier_score_loss(truth, exact), abs=1e-9)
    false, true, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    for rate in (0.001, 0.005, 0.01, 0.2):
        assert curve.recall_at(rate) == pytest.approx(true[false <= rate].max(), abs=1e-9)
    no, yes = curve.taken(0.5)
    assert (no, yes) == ((~truth & (scores >= 0.5)).sum(), (truth & (scores >= 0.5)).sum())


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_add_up_to_the_whole(shards: int) -> None:
    truth, scores = _mails(1001, 1, 3)
    whole = Curve.of(truth, scores)
    parts = [Curve.of(truth[at::shards], scores[at::shards]) for at in range(shards)]
    merged = sum(parts[1:], parts[0])
    assert merged.mails == 1001
    for name in ("scores", "yes", "no"):
        assert (getattr(merged, name) == getattr(whole, name)).all()
    assert merged.auc == whole.auc


def test_calibration_by_hand() -> None:
    truth = np.array([False, True, True, True])
    curve = Curve.of(truth, np.array([0.25, 0.25, 0.75, 0.75]))
    said, true, mails = curve.calibration(2)
    assert (said.tolist(), true.tolist(), mails.tolist()) == ([0.25, 0.75], [0.5, 1.0], [2, 2])
    assert curve.calibration_error == pytest.approx(0.25)


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are no probabilities"):
        Curve.of(np.array([True, False]), np.array([0.5, wrong]))


def test_one_side_alone_leaves_figures_undefined_and_equal_scores_are_chance() -> None:
    alone = Curve.of(np.array([True, True]), np.array([0.2, 0.7]))
    assert np.isnan([alone.auc, alone.recall_at(0.01), *bootstrap(alone, lambda c: c.auc)]).all()
    equal = Curve.of(np.array([True, False, False]), np.full(3, 0.5))
    assert equal.auc == 0.5
    assert equal.recall_at(0.01) == 0.0


def test_intervals_hold_what_they_promise() -> None:
    """Of 200 samples of a known population, about 95% of the intervals have its figure."""
    truth, scores = _mails(100_000, 2)
    known = Curve.of(truth, scores).auc
    chance = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        some = chance.choice(len(truth), 300)
        low, high = bootstrap(Curve.of(truth[some], scores[some]), lambda c: c.auc, seed)
        held += low <= known <= high
    assert 180 <= held <= 199


def test_the_interval_of_a_proportion_is_exact() -> None:
    assert proportion(0, 100) == pytest.approx((0.0, 0.03622), abs=1e-5)
    assert np.isnan(proportion(0, 0)).all()


@pytest.mark.parametrize("digits", [1, 3, 7])
def test_what_is_told_of_a_curve_draws_the_same_curve(digits: int) -> None:
    curve = Curve.of(*_mails(1001, 4, digits))
    told = json.loads(json.dumps(curve.told()))
    no, yes, thresholds = zip(*told["roc"], strict=True)
    assert (told["no"], told["yes"]) == (curve.no.sum(), curve.yes.sum()) == (no[-1], yes[-1])
    assert (no[0], yes[0], thresholds[0]) == (0, 0, None)
    drawn = np.trapezoid(yes, no) / (no[-1] * yes[-1])
    assert drawn == pytest.approx(curve.auc, abs=1e-9)
    assert len(told["roc"]) <= 400
    for threshold, *counts in zip(thresholds[1:], no[1:], yes[1:], strict=True):
        assert curve.taken(threshold) == tuple(counts)
    assert sum(mails for _, _, mails in told["calibration"]) == 1001


def test_what_is_told_of_many_mails_keeps_the_first_corners_and_the_ends() -> None:
    curve = Curve.of(*_mails(20_000, 5))
    told = curve.told()
    assert len(told["roc"]) == 400
    assert told["roc"][-1][:2] == [int(curve.no.sum()), int(curve.yes.sum())]
    for rate in (0.001, 0.005):
        allowed = rate * told["no"]
        recall = max(yes for no, yes, _ in told["roc"] if no <= allowed) / told["yes"]
        assert recall == pytest.approx(curve.recall_at(rate), abs=0.005)


def test_a_curve_of_one_label_can_be_told() -> None:
    told = Curve.of(np.ones(3, bool), np.array([0.2, 0.5, 0.9])).told()
    assert (told["yes"], told["no"], told["roc"][-1][:2]) == (3, 0, [0, 3])
