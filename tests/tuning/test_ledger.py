"""The ledger: what comes next follows from it alone, whatever was killed in between."""

import math
from pathlib import Path

import pytest

from tuning.config import StudyConfig, resolve_study
from tuning.entry import LedgerError
from tuning.ledger import Ledger
from tuning.trial import Trial

EPOCHS = 4


def _study(*overrides: str, recipe: str = "bayes") -> StudyConfig:
    return resolve_study(recipe=recipe, overrides=["train=smoke", *overrides])[0]


def _loss(trial: Trial, epoch: int) -> float:
    """Lowest at a learning rate of 1e-4; more epochs help."""
    return abs(math.log10(trial.settings["optimizer.lr"]) + 4) + 1 / epoch + trial.seed / 100


def _train(ledger: Ledger, trial: Trial, most: int = 99) -> bool:
    """Train on, for so many epochs at most; returns whether that was to where it ends or pauses."""
    done = len(trial.epochs)
    for epoch in range(1, ledger.until(trial) + 1):
        if epoch > done + most:
            return False
        facts = {"epoch": epoch, "val_loss": _loss(trial, epoch), "seconds": 1.0}
        if ledger.report(trial.number, epoch, facts):
            break
    return True


def _all(path: Path, study: StudyConfig, dies: bool = False) -> list[Trial]:
    """Run a study; where it `dies`, its driver does so after each epoch and before each end."""
    ledger = Ledger(path, study, EPOCHS)
    while (trial := ledger.next()) is not None:
        whole = _train(ledger, trial, 1 if dies else 99)
        if dies:
            ledger = Ledger(path, study, EPOCHS)  # the old one is forgotten
            if whole and ledger.get(trial.number).state == "running":
                again = ledger.next()
                assert again is not None
                assert again.number == trial.number
        if whole:
            ledger.finish(trial.number)
    return ledger.trials()


@pytest.mark.parametrize("searcher", ["random", "bayes", "gp"])
def test_a_study_that_dies_in_each_trial_is_the_same(searcher: str, tmp_path: Path) -> None:
    study = _study("trials=6", "stopping.kind=asha", "stopping.factor=2", f"searcher={searcher}")
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = _all(tmp_path / "whole", study)
    broken = _all(tmp_path / "broken", study, dies=True)
    assert whole == broken
    assert len(whole) == 6
    assert len({trial.settings["optimizer.lr"] for trial in whole}) == 6
    assert {trial.state for trial in whole} == {"done", "paused"}


def test_another_seed_draws_other_points(tmp_path: Path) -> None:
    study = _study("trials=3")
    drawn = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        trials = _all(tmp_path / str(seed), study.model_copy(update={"seed": seed}))
        drawn.append([trial.settings for trial in trials])
    assert drawn[0] != drawn[1]


def test_a_grid_is_gone_through_in_order(tmp_path: Path) -> None:
    study = _study(recipe="grid")
    trials = _all(tmp_path, study)
    assert len(trials) == study.points
    assert trials[0].settings == {"optimizer.lr": 5e-5, "batching.size": 16}
    assert len({str(trial.settings) for trial in trials}) == study.points
    assert {trial.state for trial in trials} == {"done"}


def test_each_point_has_all_its_seeds(tmp_path: Path) -> None:
    trials = _all(tmp_path, _study("trials=2", "seeds=3"))
    assert [trial.seed for trial in trials] == [0, 1, 2, 0, 1, 2]
    assert [trial.point for trial in trials] == [0, 0, 0, 3, 3, 3]
    assert trials[0].settings == trials[2].settings != trials[3].settings


def test_a_failed_point_gets_no_further_seed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study("trials=2", "seeds=2"), EPOCHS)
    first = ledger.next()
    assert first is not None
    ledger.fail(first.number, "out of memory")
    second = ledger.next()
    assert second is not None
    assert second.point == second.number
    failed = ledger.get(first.number)
    assert (failed.state, failed.reason) == ("failed", "out of memory")


def test_an_epoch_told_twice_counts_once_and_gets_the_same_answer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study("budget.epochs=1"), EPOCHS)
    trial = ledger.next()
    assert trial is not None
    facts = {"epoch": 1, "seconds": 1.0, "val_loss": 0.9}
    for _ in range(2):
        assert ledger.report(trial.number, 1, facts)
    stopped = ledger.finish(trial.number)
    assert (stopped.state, len(stopped.epochs)) == ("stopped", 1)
    assert "budget" in str(stopped.reason)


def test_the_budget_ends_a_study(tmp_path: Path) -> None:
    trials = _all(tmp_path, _study("trials=9", "budget.epochs=7"))
    assert sum(len(trial.epochs) for trial in trials) == 7
    assert [trial.state for trial in trials] == ["done", "stopped"]
    assert "budget" in str(trials[-1].reason)


def test_the_budget_counts_the_epochs_that_other_trials_are_in(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study("trials=9", "budget.epochs=5"), EPOCHS)
    first, second = ledger.next(), ledger.next()
    assert first is not None
    assert second is not None
    stopped = []
    for epoch in (1, 2, 3):
        for trial in (first, second):
            facts = {"epoch": epoch, "val_loss": 0.5, "seconds": 1.0}
            if trial not in stopped and ledger.report(trial.number, epoch, facts):
                ledger.finish(trial.number)
                stopped.append(trial)
    assert ledger.next() is None
    assert sum(len(trial.epochs) for trial in ledger.trials()) == 5


def test_trials_are_added_to_a_finished_study(tmp_path: Path) -> None:
    study = _study("trials=3")
    before = _all(tmp_path, study)
    after = _all(tmp_path, study.model_copy(update={"trials": 5}))
    assert after[:3] == before
    assert len(after) == 5


def test_a_value_that_is_no_number_fails_the_trial(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study("objective=val_roc_auc"), EPOCHS)
    trial = ledger.next()
    assert trial is not None
    facts = {"epoch": 1, "val_loss": 0.5, "val_roc_auc": float("nan"), "seconds": 1.0}
    ledger.report(trial.number, 1, facts)
    assert ledger.finish(trial.number).state == "failed"


def test_another_study_is_learned_from_but_not_counted(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    study = _study("trials=6")
    old = _all(tmp_path / "old", study)
    ledger = Ledger(tmp_path / "new", study.model_copy(update={"trials": 2}))
    assert ledger.learn("old", old) == 6
    while (trial := ledger.next()) is not None:
        _train(ledger, trial)
        ledger.finish(trial.number)
    assert len(ledger.trials()) == 2
    narrow = _study("trials=2", "space={optimizer.lr: {loguniform: [1.0e-9, 1.0e-8]}}")
    (tmp_path / "narrow").mkdir()
    assert Ledger(tmp_path / "narrow", narrow).learn("old", old) == 0


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(LedgerError, match=r"study\.db cannot be opened"):
        Ledger(tmp_path, _study(), EPOCHS)


def test_the_first_point_is_the_baseline(tmp_path: Path) -> None:
    here = {"optimizer.lr": 2e-4, "batching.size": 8}
    first = Ledger(tmp_path, _study(), baseline=here).next()
    assert first is not None
    assert first.settings == here
    (tmp_path / "without").mkdir()
    other = Ledger(tmp_path / "without", _study("baseline=false"), baseline=here).next()
    assert other is not None
    assert other.settings != here
