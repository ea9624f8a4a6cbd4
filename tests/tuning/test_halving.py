"""Asynchronous successive halving: who pauses, who goes on, and what a budget is kept for."""

import math
from pathlib import Path

import pytest

from tuning.config import StudyConfig, resolve_study
from tuning.halving import drawn, epochs, rungs, worth
from tuning.ledger import Ledger
from tuning.trial import Trial

EPOCHS = 5


def _study(*overrides: str) -> StudyConfig:
    given = ["train=smoke", "stopping={kind: asha, factor: 3}", "searcher=random", *overrides]
    return resolve_study(recipe="bayes", overrides=given)[0]


class Cluster:
    """Trains trials in the order of their numbers, so many at once, one epoch each in turn.

    A trial's loss is `losses[its number]`, and falls with each epoch.
    """

    def __init__(
        self, path: Path, study: StudyConfig, losses: list[float], at_once: int = 1
    ) -> None:
        self.ledger = Ledger(path, study, EPOCHS)
        self.losses, self.at_once = losses, at_once
        self.running: list[Trial] = []
        self.order: list[tuple[int, int]] = []
        """Number of each trial that was given out, and to which epoch."""

    def run(self) -> list[Trial]:
        while self._fill() or self.running:
            for trial in list(self.running):
                self._epoch(trial.number)
        return self.ledger.trials()

    def _fill(self) -> bool:
        while len(self.running) < self.at_once and (trial := self.ledger.next()) is not None:
            self.order.append((trial.number, self.ledger.until(trial)))
            self.running.append(trial)
        assert self.running or not self.ledger.waits, "nobody would ever end"
        return bool(self.running)

    def _epoch(self, number: int) -> None:
        trial = self.ledger.get(number)
        epoch = len(trial.epochs) + 1
        loss = self.losses[number % len(self.losses)]
        loss = loss if math.isnan(loss) else loss + 0.01 / epoch
        stop = self.ledger.report(number, epoch, {"epoch": epoch, "val_loss": loss, "seconds": 1.0})
        if stop or epoch >= self.ledger.until(trial):
            self.ledger.finish(number)
            self.running = [trial for trial in self.running if trial.number != number]


def test_rungs_end_with_the_training() -> None:
    assert rungs(_study(), 5) == [1, 3, 5]
    assert rungs(_study("stopping.grace=2"), 5) == [2, 5]
    assert rungs(_study("stopping.grace=9"), 5) == [5]


def test_one_of_three_goes_on_and_the_best_of_all_comes_to_its_end(tmp_path: Path) -> None:
    losses = [0.5, 0.4, 0.6, 0.3, 0.9, 0.8, 0.1, 0.7, 0.2]
    cluster = Cluster(tmp_path, _study("trials=9"), losses)
    trials = cluster.run()
    assert cluster.order == [*((number, 1) for number in range(9)), (6, 3), (8, 3), (3, 3), (6, 5)]
    assert [trial.number for trial in trials if trial.state == "done"] == [6]
    assert [len(trial.epochs) for trial in trials] == [1, 1, 1, 3, 1, 1, 5, 1, 3]
    assert {trial.state for trial in trials} == {"done", "paused"}


def test_where_hours_are_the_budget_nobody_waits_for_those_to_come(tmp_path: Path) -> None:
    losses = [0.5, 0.4, 0.6, 0.3, 0.9, 0.8, 0.1, 0.7, 0.2]
    cluster = Cluster(tmp_path, _study("trials=9", "budget.hours=9"), losses)
    cluster.run()
    assert cluster.order == [
        (0, 1), (1, 1), (2, 1), (1, 3), (3, 1), (4, 1), (5, 1), (3, 3),
        (6, 1), (7, 1), (8, 1), (6, 3), (6, 5),
    ]  # fmt: skip


def test_as_many_are_drawn_as_the_budget_suffices_for() -> None:
    for budget in (5, 18, 30):
        study = _study("trials=99", f"budget.epochs={budget}")
        most = drawn(study, EPOCHS)
        assert epochs(study, EPOCHS, most) <= budget < epochs(study, EPOCHS, most + 1)
    assert drawn(_study("trials=99", "budget.epochs=18"), EPOCHS) == 10
    assert drawn(_study("trials=9"), EPOCHS) == 9


def test_a_rung_sends_on_no_more_than_its_share(tmp_path: Path) -> None:
    falling = [0.9 - number / 100 for number in range(9)]  # each better than all before it
    trials = Cluster(tmp_path, _study("trials=9", "budget.hours=9"), falling).run()
    assert sum(len(trial.epochs) >= 3 for trial in trials) == 3


@pytest.mark.parametrize(("budget", "at_once"), [(5, 2), (7, 1), (18, 1), (18, 2), (24, 4)])
def test_a_budget_brings_one_trial_to_its_end_and_is_kept(
    budget: int, at_once: int, tmp_path: Path
) -> None:
    study = _study("trials=99", f"budget.epochs={budget}")
    losses = [((number * 7919) % 101) / 100 for number in range(99)]
    trials = Cluster(tmp_path, study, losses, at_once).run()
    spent = sum(len(trial.epochs) for trial in trials)
    assert "done" in {trial.state for trial in trials}
    assert budget - 2 <= spent <= budget


def test_a_trial_is_promoted_only_when_its_process_has_let_it_go(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study("trials=3"), EPOCHS)
    for loss in (0.5, 0.4, 0.1):
        trial = ledger.next()
        assert trial is not None
        ledger.report(trial.number, 1, {"epoch": 1, "val_loss": loss, "seconds": 1.0})
        if trial.number < 2:
            ledger.finish(trial.number)
    assert ledger.next() is None
    assert ledger.waits, "the best of three has told its epoch, and is not back yet"
    assert ledger.finish(2).state == "paused"
    promoted = ledger.next()
    assert promoted is not None
    assert (promoted.number, ledger.until(promoted)) == (2, 3)


def test_too_few_trials_for_a_share_still_give_a_result(tmp_path: Path) -> None:
    trials = Cluster(tmp_path, _study("trials=2"), [0.5, 0.4]).run()
    assert [trial.state for trial in trials] == ["paused", "done"]


def test_a_value_that_is_no_number_goes_nowhere(tmp_path: Path) -> None:
    trials = Cluster(tmp_path, _study("trials=3"), [math.nan, 0.9, math.nan]).run()
    assert [trial.state for trial in trials] == ["paused", "done", "paused"]


def test_hours_that_are_over_leave_the_leader_its_end(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, _study("trials=99", "budget.hours=1"), [0.5, 0.2, 0.4, 0.3])
    for _ in range(4):  # the second is on its way to the third epoch
        cluster._fill()
        cluster._epoch(cluster.running[0].number)
    cluster.ledger.before = 3600.0
    trials = cluster.run()
    assert [trial.state for trial in trials] == ["paused", "done", "paused"]


def test_only_trials_that_did_well_get_further_seeds(tmp_path: Path) -> None:
    trials = Cluster(tmp_path, _study("trials=3", "seeds=3"), [0.5, 0.2, 0.4]).run()
    assert [(t.point, t.seed, len(t.epochs)) for t in trials] == [
        (0, 0, 1), (1, 0, 5), (2, 0, 1), (1, 1, 5), (1, 2, 5),
    ]  # fmt: skip


def test_checkpoints_are_kept_of_those_that_may_go_on(tmp_path: Path) -> None:
    study = _study("trials=6")
    cluster = Cluster(tmp_path, study, [0.5, 0.4, 0.6, 0.3, 0.9, 0.8])
    for _ in range(7):
        cluster._fill()
        cluster._epoch(cluster.running[0].number)
    trials = cluster.ledger.trials()
    assert [trial.state for trial in trials] == ["paused"] * 3 + ["running"] + ["paused"] * 2
    assert worth(study, trials, EPOCHS) == {1}, "two of six go on, and one of them does already"


def test_a_finished_study_takes_more_trials_and_promotes_among_all(tmp_path: Path) -> None:
    losses = [0.5, 0.4, 0.6, 0.3, 0.9, 0.8]
    before = Cluster(tmp_path, _study("trials=3"), losses).run()
    cluster = Cluster(tmp_path, _study("trials=6"), losses)
    after = cluster.run()
    assert after[:3] == before
    assert cluster.order == [(3, 1), (4, 1), (5, 1), (3, 3)], "the other place was taken before"


def test_what_a_study_takes_is_told() -> None:
    assert epochs(_study("trials=9"), EPOCHS) == 9 + 3 * 2 + 2
    assert epochs(_study("trials=99", "budget.epochs=12"), EPOCHS) <= 12
