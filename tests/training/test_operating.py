"""Calibration and operating points: what they promise holds on mails that they have not seen."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from training.calibration import calibrated, temperature
from training.curve import Curve
from training.operating import RATES, fit, needed, told


def _mails(ham: int, spam: int, chance: np.random.Generator) -> Curve:
    scores = expit(np.concatenate([chance.normal(-3, 2, ham), chance.normal(3, 2, spam)]))
    return Curve.of(np.repeat([False, True], [ham, spam]), scores)


def test_a_point_keeps_its_rate_in_95_of_100_seeds() -> None:
    """The true rate of each threshold, known to within 1e-6, against the one that it promises."""
    truth = np.sort(np.random.default_rng(0).normal(-3, 2, 1_000_000))
    broken = dict.fromkeys(RATES, 0)
    for seed in range(400):
        for point in fit(_mails(3200, 800, np.random.default_rng(seed + 1))):
            assert point.threshold is not None
            at = np.log(point.threshold / (1 - point.threshold))
            rate = 1 - np.searchsorted(truth, at) / len(truth)
            broken[point.name] += int(rate > point.rate)
    assert all(count <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95) for count in broken.values())
    assert broken["lenient"] > 0, "a bound that is never met is too wide"


def test_too_few_mails_are_refused_with_the_number_that_is_needed() -> None:
    points = {p.name: p for p in fit(_mails(415, 190, np.random.default_rng(0)))}
    assert points["strict"].threshold is None
    assert (points["strict"].needed, points["strict"].had) == (2995, 415)
    assert points["balanced"].threshold is None
    assert points["lenient"].threshold is not None
    for rate in RATES.values():
        assert (1 - rate) ** needed(rate) <= 0.05 < (1 - rate) ** (needed(rate) - 1)


def test_what_a_point_did_is_told_with_intervals() -> None:
    validation, test = (_mails(4000, 1000, np.random.default_rng(seed)) for seed in (0, 1))
    for row in told(fit(validation), test):
        low, high = row["intervals"]["false_positive_rate"]
        assert low <= row["false_positive_rate"] == row["false"] / 4000 <= high
        assert 0 < row["recall"] < 1
    [refused] = [r for r in told(fit(_mails(400, 9, np.random.default_rng(0))), test)
                 if r["name"] == "strict"]  # fmt: skip
    assert (refused["needed"], refused["had"]) == (2995, 400)


def test_equal_scores_are_all_left_below_the_threshold() -> None:
    curve = Curve.of(np.repeat([False, True], [4000, 10]), np.full(4010, 0.5))
    for point in fit(curve):
        assert point.threshold is not None
        assert curve.taken(point.threshold) == (0, 0)


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_again(heat: float) -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, 20_000)
    truth = (chance.random(20_000) < expit(logits)).astype(np.int64)
    spam = expit(logits * heat)
    scores = np.stack([1 - spam, spam], 1).astype(np.float32)
    found = temperature(truth, scores)
    assert found == pytest.approx(heat, rel=0.05)
    better = calibrated(scores, found, multi=False)
    assert log_loss(truth, better) <= log_loss(truth, scores) + 1e-6
    assert (better.argmax(1) == scores.argmax(1)).all()


def test_mails_with_several_labels_are_calibrated_label_by_label() -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, (20_000, 3))
    truth = chance.random((20_000, 3)) < expit(logits)
    found = temperature(truth, expit(logits * 2).astype(np.float32))
    assert found == pytest.approx(2, rel=0.05)


def test_mails_that_are_all_right_leave_the_temperature_within_its_range() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert 0.05 <= temperature(np.array([0, 1]), scores) <= 20
    assert temperature(np.zeros(0, np.int64), np.zeros((0, 2), np.float32)) == 1.0
    assert np.isfinite(calibrated(scores, 0.05, multi=False)).all()
