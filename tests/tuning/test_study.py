"""Studies: their config, and two small searches for real."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import pytest

from training.home import Home
from training.registry import resolve
from training.schema import ConfigError
from training.stages import Quiet, Stage
from training.tracking import client
from tuning.config import resolve_study
from tuning.study import search, searcher


def test_the_grid_counts_every_combination() -> None:
    study, config = resolve_study(recipe="grid", overrides=["train=smoke"])
    assert study.points == 6
    assert config.recipe == "smoke"


def test_faults_of_study_and_training_come_together() -> None:
    with pytest.raises(ConfigError) as error:
        resolve_study(recipe="bayes", overrides=["trials=0", "optimizer.lr=-1", "metric=luck"])
    message = str(error.value)
    assert "trials:" in message
    assert "optimizer.lr:" in message
    assert "metric:" in message


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{optimizer.learning: {choice: [1]}}", "no such key"),
        ("{optimizer.lr: {uniform: [-1, 1]}}", "greater than 0"),
        ("{optimizer.lr: {loguniform: [0, 1]}}", "needs low < high, above 0"),
        ("{optimizer.lr: {uniform: [0.1, 1], choice: [1]}}", "exactly one of"),
        ("{optimizer.lr: {grid: [0.1]}}", "takes uniform, loguniform or choice alone"),
        ("{}", "at least 1 item"),
    ],
)
def test_a_wrong_space_is_named(space: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"searcher: bayes\ntrain: smoke\nspace: {space}\n")
    with pytest.raises(ConfigError, match=said):
        resolve_study(file=file)


def test_random_points_are_not_all_tried_at_once() -> None:
    study, _ = resolve_study(recipe="random", overrides=["trials=9"])
    drawn, _ = searcher(study, 2)
    assert drawn.max_concurrent == 2


class Terminal(Quiet):
    """Keeps what is said; like a terminal's, its stages cannot be pickled."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.said: list[str] = []

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        with self.lock:
            self.said.append(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        yield self


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("searcher", ["grid", "bayes"])
def test_a_search_registers_its_best_trial(home: Path, tmp_path: Path, searcher: str) -> None:
    axis = {"grid": "grid: [0.00001, 0.003]", "bayes": "loguniform: [0.00001, 0.003]"}[searcher]
    file = tmp_path / "study.yaml"
    file.write_text(
        f"searcher: {searcher}\ntrain: smoke\ntrials: 2\nspace: {{optimizer.lr: {{{axis}}}}}\n"
    )
    study, config = resolve_study(file=file, overrides=["optimizer.epochs=2", "scaling.workers=1"])
    here = Home(home)
    terminal = Terminal()
    result = search(study, config, here, terminal, "s")
    assert any(text.startswith("2 of 2 trials, best val_loss") for text in terminal.said)
    assert [trial.error for trial in result.trials] == [None, None]
    losses = [trial.metric for trial in result.trials if trial.metric is not None]
    assert losses == sorted(losses)
    assert losses[0] < losses[1]
    if searcher == "grid":
        assert result.trials[0].settings["optimizer.lr"] == 0.003
    assert resolve(here, "mailray-smoke").is_dir()
    experiment = client(here).get_experiment_by_name("mailray-smoke").experiment_id
    assert len(client(here).search_runs([experiment])) == 3
