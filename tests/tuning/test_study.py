"""Studies for real: small searches on a Ray of their own, and what is left of them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import pytest
import ray

from training.config import resolve as resolve_config
from training.home import Home
from training.registry import resolve
from training.run import RunNameError
from training.schema import ConfigError
from training.stages import Quiet, Stage
from training.tracking import TrackingError, client
from tuning.config import resolve_study
from tuning.record import Record, known_study, new_study
from tuning.study import search
from tuning.trainable import Results

pytestmark = pytest.mark.usefixtures("ray_session")


class Terminal(Quiet):
    """Keeps what is said; like a terminal's, its stages cannot be pickled."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.said: list[str] = []
        self.notes: list[str] = []

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        with self.lock:
            self.said.append(text)

    def note(self, text: str) -> None:
        with self.lock:
            self.notes.append(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        yield self


def _record(home: Path, name: str, tmp_path: Path, text: str, *overrides: str) -> Record:
    file = tmp_path / "study.yaml"
    file.write_text(f"train: smoke\n{text}\n")
    study, config = resolve_study(file=file, overrides=overrides)
    return new_study(Home(home), study, config, name)


def _free() -> dict[str, float]:
    """What is available when all processes that ended are gone, which takes Ray a moment."""
    for _ in range(100):
        free = ray.available_resources()
        if free.get("CPU") == ray.cluster_resources()["CPU"]:
            break
        time.sleep(0.1)
    return {key: free[key] for key in free if "CPU" in key or "GPU" in key}


@contextmanager
def nothing_is_kept() -> Iterator[None]:
    """All resources are free after the block as they were before, no placement group is left."""
    before = _free()
    yield
    assert _free() == before


@pytest.mark.slow
def test_a_grid_registers_its_best_trial(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: grid\nspace: {optimizer.lr: {grid: [0.00001, 0.003]}}",
        "optimizer.epochs=2",
    )  # fmt: skip
    here, terminal = Home(home), Terminal()
    with nothing_is_kept():
        result = search(record, here, terminal)
    assert any(text.startswith("2 of 2 trials, best val_loss") for text in terminal.said)
    assert len([note for note in terminal.notes if note.startswith("trial")]) == 2
    assert [point.settings["optimizer.lr"] for point in result.points] == [0.003, 0.00001]
    values = [point.values["val_loss"] for point in result.points]
    assert values == sorted(values)
    assert resolve(here, "mailray-smoke").is_dir()
    tracker = client(here)
    experiment = tracker.get_experiment_by_name("mailray-smoke").experiment_id
    runs = tracker.search_runs([experiment])
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    below = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {
        Record.read(record.path).tracked
    }
    kept = [file.parent.parent.parent.name for file in record.path.glob("trials/*/*/*/state.json")]
    assert kept == ["0001"], "checkpoints of the loser are removed"
    best = resolve_config(file=result.recipe)
    assert (best.optimizer.lr, best.optimizer.epochs) == (0.003, 2)
    page = result.report.read_text("utf-8")
    assert page.count("<svg") >= 2
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    with pytest.raises(RunNameError, match="study s is finished"):
        known_study(here, "s")
    with pytest.raises(ConfigError, match="keeps its config"):
        known_study(here, "s", ["optimizer.epochs=9"])
    with pytest.raises(RunNameError, match="study s exists"):
        new_study(here, record.study, record.config, "s")


@pytest.mark.slow
def test_stopped_and_failed_trials_leave_nothing_behind(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: grid\nstopping: {kind: asha, factor: 2}\n"
        "space: {optimizer.lr: {grid: [0.003, 1.0e+30, 0.00001, 0.00002]}}",
        "optimizer.epochs=3",
    )  # fmt: skip
    terminal = Terminal()
    with nothing_is_kept():
        result = search(record, Home(home), terminal)
    states = {p.settings["optimizer.lr"]: p.trials[0].state for p in result.points}
    assert states[0.003] == "done"
    assert states[1e30] == "failed"
    assert "paused" in states.values()
    [failed] = [point for point in result.points if point.trials[0].state == "failed"]
    assert "no number" in str(failed.trials[0].reason) or "finite" in str(failed.trials[0].reason)
    assert result.cost["epochs_spared"] > 0
    more = known_study(Home(home), "s", ["budget.epochs=99"])
    assert more.study.budget.epochs == 99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "state"),
    [("stopping: {kind: asha, factor: 2}", "paused"), ("budget: {epochs: 3}", "stopped")],
)
def test_a_trial_of_two_workers_leaves_with_its_workers(
    home: Path, tmp_path: Path, what: str, state: str
) -> None:
    record = _record(
        home, "s", tmp_path,
        f"searcher: grid\n{what}\nresources: {{workers: 2}}\n"
        "concurrent: 1\nspace: {optimizer.lr: {grid: [0.003, 0.00001]}}",
        "optimizer.epochs=2",
    )  # fmt: skip
    with nothing_is_kept():
        result = search(record, Home(home), Terminal())
    assert [point.trials[0].state for point in result.points] == ["done", state]
    assert [list(point.trials[0].epochs) for point in result.points] == [[1, 2], [1]]


@pytest.mark.slow
def test_the_best_is_trained_again_on_validation_mails_too(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: random\ntrials: 1\nseeds: 2\nretrain: true\n"
        "space: {optimizer.lr: {loguniform: [0.001, 0.003]}, data.max_length: {choice: [32, 64]}}",
        "optimizer.epochs=2",
    )  # fmt: skip
    result = search(record, Home(home), Terminal())
    assert len(list(Home(home).tokens.glob("*/manifest.json"))) == 2, "a cache for each length"
    assert list(result.points[0].intervals) == ["val_loss"]
    best = resolve_config(file=result.recipe)
    assert best.data.with_validation
    assert best.data.max_length == result.points[0].settings["data.max_length"]
    assert set(result.best.bundle.metrics) == {"test", "baselines"}


@pytest.mark.slow
def test_a_tracker_that_is_down_fails_no_trial(
    home: Path, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: grid\nspace: {optimizer.lr: {grid: [0.00001, 0.003]}}",
        "optimizer.epochs=2",
    )  # fmt: skip
    here, terminal = Home(home), Terminal()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    with pytest.raises(TrackingError, match="does not answer"):
        search(record, here, terminal)
    assert len([note for note in terminal.notes if "the run goes on" in note]) == 1
    assert len([note for note in terminal.notes if note.startswith("trial")]) == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    again = Terminal()
    result = search(known_study(here, "s"), here, again)
    assert not [note for note in again.notes if note.startswith("trial")], "none is run again"
    assert (result.best.version, len(result.points)) == ("1", 2)
    assert [row["epoch"] for row in result.best.bundle.epochs] == [1, 2]
    assert Record.read(record.path).tracked is not None


def test_batches_larger_than_the_data_are_refused(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: random\nspace: {batching.size: {choice: [16, 4096]}}",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"batching\.size 4096 is more than the \d+ mails"):
        search(record, Home(home), Quiet())
    assert not record.path.exists()


def test_more_workers_than_the_cluster_has_are_refused(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: random\nresources: {workers: 6}\nspace: {optimizer.lr: {uniform: [0.1, 0.2]}}",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="6 workers with 1 CPUs each and one for the trial"):
        search(record, Home(home), Quiet())
    assert not record.path.exists()


def test_an_epoch_that_was_done_again_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    first = Results(file)
    assert first.add({"epoch": 1.0, "val_loss": 0.5}) is not None
    with file.open("a") as out:
        out.write('{"epoch": 2, "val_')  # its writer was killed
    again = Results(file)
    assert list(again.known) == [1]
    assert again.add({"epoch": 1.0, "val_loss": 0.5}) is None
    assert again.add({"epoch": 2.0, "val_loss": 0.4}) is not None
    assert [json.loads(line)["epoch"] for line in file.read_text().splitlines()] == [1, 2]


@pytest.mark.slow
def test_a_population_hands_its_weights_on(home: Path, tmp_path: Path) -> None:
    record = _record(
        home, "s", tmp_path,
        "searcher: pbt\ntrials: 4\nspace: {optimizer.lr: {loguniform: [0.00001, 0.003]}}",
        "optimizer.epochs=3",
    )  # fmt: skip
    with nothing_is_kept():
        result = search(record, Home(home), Terminal())
    trials = sorted((trial for p in result.points for trial in p.trials), key=lambda t: t.number)
    assert [trial.generation for trial in trials] == [0] * 4 + [1] * 4 + [2] * 4
    assert [list(trial.epochs) for trial in trials] == [[1]] * 4 + [[2]] * 4 + [[3]] * 4
    by_origin = [trial.origin for trial in trials if trial.generation == 1]
    assert len(set(by_origin)) < 4, "somebody went on from another"
    better = [t.value("val_loss") or 9 for t in trials]
    assert min(better[8:]) < min(better[:4])
