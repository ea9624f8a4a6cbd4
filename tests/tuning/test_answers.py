"""Ranking, intervals, Pareto front and cost, against figures worked out by hand."""

import pytest

from tuning.answers import cost, front, points, winner
from tuning.config import Direction
from tuning.trial import State, Trial

LOSS: dict[str, Direction] = {"val_loss": "minimize"}


def _trial(
    number: int, loss: float, *, point: int | None = None, seed: int = 0, state: State = "done",
    f1: float = 0.5, epochs: int = 2,
) -> Trial:  # fmt: skip
    facts = {
        epoch: {"epoch": epoch, "val_loss": loss + epochs - epoch, "val_f1": f1, "seconds": 1.5}
        for epoch in range(1, epochs + 1)
    }
    return Trial(number, number if point is None else point, seed, {"a": number}, state, facts)


def test_seeds_of_a_point_are_put_together() -> None:
    trials = [_trial(0, 0.3), _trial(1, 0.1), _trial(2, 0.2, point=1, seed=1)]
    best, second = points(trials, LOSS)
    assert best.number == 1
    assert best.values["val_loss"] == pytest.approx(0.15)
    low, high = best.intervals["val_loss"]
    # 12.706 is Student's t of one degree of freedom; the standard error of 0.1 and 0.2 is 0.05.
    assert (low, high) == pytest.approx((0.15 - 12.706 * 0.05, 0.15 + 12.706 * 0.05), abs=1e-3)
    assert second.intervals == {}
    chosen = winner([best, second], LOSS)
    assert chosen is not None
    assert chosen.number == 1


def test_a_point_that_was_stopped_never_wins() -> None:
    trials = [_trial(0, 0.1, state="stopped"), _trial(1, 0.5), _trial(2, 0.0, state="failed")]
    ranked = points(trials, LOSS)
    assert [point.number for point in ranked] == [1, 2, 0]
    assert winner(points(trials[:1], LOSS), LOSS) is None


def test_a_point_with_a_failed_seed_stands_behind_whole_ones() -> None:
    trials = [_trial(0, 0.1), _trial(1, 0.1, point=0, seed=1, state="failed"), _trial(2, 0.5)]
    assert [point.number for point in points(trials, LOSS)] == [2, 0]


def test_the_front_has_what_nothing_else_beats() -> None:
    both: dict[str, Direction] = {"val_loss": "minimize", "val_f1": "maximize"}
    trials = [_trial(0, 0.1, f1=0.7), _trial(1, 0.2, f1=0.9), _trial(2, 0.3, f1=0.8)]
    ranked = points(trials, both)
    assert [point.number for point in front(ranked, both)] == [0, 1]
    assert [point.number for point in ranked] == [0, 1, 2]


def test_what_was_spared_is_counted_against_full_training() -> None:
    trials = [_trial(0, 0.1, epochs=4), _trial(1, 0.9, epochs=1, state="stopped")]
    spent = cost(trials, full=4, cores=2, gpus=0.5)
    assert (spent["epochs"], spent["epochs_spared"]) == (5, 3)
    assert spent["spared"] == pytest.approx(3 / 8)
    assert spent["core_hours"] == pytest.approx(5 * 1.5 * 2 / 3600)
    assert spent["gpu_hours"] == pytest.approx(5 * 1.5 * 0.5 / 3600)
