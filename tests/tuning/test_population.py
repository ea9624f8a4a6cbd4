"""Population-based training: who goes on from whom, and with what."""

from pathlib import Path

import numpy as np
import pytest

from training.schema import ConfigError
from tuning.config import StudyConfig, resolve_study
from tuning.ledger import Ledger
from tuning.population import changed, next_generation
from tuning.trial import Trial

EPOCHS = 3


def _study(*overrides: str) -> StudyConfig:
    return resolve_study(recipe="pbt", overrides=["train=smoke", "trials=4", *overrides])[0]


def _trial(number: int, loss: float | None) -> Trial:
    epochs = {} if loss is None else {1: {"epoch": 1, "val_loss": loss, "seconds": 1.0}}
    settings = {"optimizer.lr": 1e-4, "model.dropout": 0.1 + number / 100}
    state = "failed" if loss is None else "done"
    return Trial(number, number, 0, settings, state, epochs)  # type: ignore[arg-type]


def test_the_worst_quarter_takes_the_weights_of_the_best() -> None:
    before = [_trial(n, loss) for n, loss in enumerate([0.3, 0.1, 0.9, 0.2])]
    members = next_generation(_study(), before, 1)
    assert [member.origin for member in members] == [0, 1, 1, 3]
    assert members[0].settings == before[0].settings
    assert members[2].settings["optimizer.lr"] in (pytest.approx(8e-5), pytest.approx(1.25e-4))
    assert members == next_generation(_study(), before, 1), "nothing but the seed decides"


def test_a_member_that_failed_starts_from_a_good_one() -> None:
    before = [_trial(n, loss) for n, loss in enumerate([0.3, None, 0.1, 0.2])]
    assert [member.origin for member in next_generation(_study(), before, 1)] == [0, 2, 2, 3]
    assert next_generation(_study(), [_trial(n, None) for n in range(4)], 1) == []


def test_changed_settings_stay_within_the_space() -> None:
    space = _study().space
    chance = np.random.default_rng(0)
    settings = {"optimizer.lr": 4.9e-4, "model.dropout": 0.0}
    for _ in range(50):
        settings = changed(space, settings, chance)
        assert 1e-5 <= settings["optimizer.lr"] <= 5e-4
        assert 0.0 <= settings["model.dropout"] <= 0.3


def test_generations_follow_each_other_even_if_the_driver_dies(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _study(), EPOCHS)
    first = [ledger.next() for _ in range(4)]
    assert ledger.next() is None
    assert ledger.waits
    trials = [trial for trial in first if trial is not None]
    while trials:
        for trial in trials:
            epoch = trial.generation + 1
            facts = {"epoch": epoch, "val_loss": trial.settings["model.dropout"], "seconds": 1.0}
            ledger.report(trial.number, epoch, facts)
            ledger.finish(trial.number)
        ledger = Ledger(tmp_path, _study(), EPOCHS)
        trials = []
        while (found := ledger.next()) is not None:
            trials.append(found)
    assert not ledger.waits
    generations = [trial.generation for trial in ledger.trials()]
    assert generations == [0] * 4 + [1] * 4 + [2] * 4
    for trial in ledger.trials()[4:]:
        assert ledger.get(trial.origin or 0).generation == trial.generation - 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["space={batching.size: {choice: [8, 16]}}"],
        ["stopping.kind=asha"],
        ["seeds=2"],
        ["objective={val_loss: minimize, val_f1: maximize}"],
    ],
)
def test_what_a_population_cannot_have_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="searcher: pbt"):
        _study(*overrides)
