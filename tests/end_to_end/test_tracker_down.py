"""Runs whose tracker is killed, was never there, or hangs: trained and bundled all the same."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.end_to_end.mlflow_server import Server, hanging, serving
from tests.end_to_end.terminal import Said, started
from training.bundle import load
from training.config import resolve
from training.home import Home
from training.recorder import Recorder
from training.run import Run

pytestmark = pytest.mark.slow

EPOCHS = 4
TRAIN = (
    "train", "--recipe", "smoke", "--name", "run", f"optimizer.epochs={EPOCHS}",
    f"optimizer.patience={EPOCHS}", "scaling.workers=1", "data.source=synthetic:800",
    "batching.size=8",
)  # fmt: skip
RESUME = ("train", "--resume", "--name", "run", "--json")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server") as made:
        yield made


def _run(home: Path, uri: str, *words: str) -> Said:
    with started(home, *words, MLFLOW_TRACKING_URI=uri) as process:
        out, err = process.communicate(timeout=400)
        return Said(process.returncode, out, err)


def _trained_but_not_registered(home: Path, said: Said) -> None:
    assert said.code == 1, said.err
    place = home / "runs" / "run"
    assert f"the bundle is whole at {place / 'bundle'}" in said.err
    assert "`mailray train --resume --name run`" in said.err
    assert said.err.count("the run goes on") == 1
    assert load(place / "bundle").metrics["test"]["accuracy"] > 0.5
    assert Run.read(place).state == "bundled"
    assert list((place / "tensorboard").iterdir())


def _registered(home: Path, server: Server) -> None:
    """By a command that trains nothing, with all that was measured before."""
    said = _run(home, server.uri, *RESUME)
    assert said.code == 0, said.err
    stages = {line.split("  ")[0] for line in said.err.splitlines() if "  " in line}
    assert stages == {"registry"}, said.err
    assert json.loads(said.out)["version"] == "1"
    told = MlflowClient(server.uri, server.uri)
    [experiment] = told.search_experiments(filter_string="name = 'mailray-smoke'")
    [run] = told.search_runs([experiment.experiment_id])
    assert run.info.run_id == Run.read(home / "runs" / "run").tracked
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    losses = told.get_metric_history(run.info.run_id, "val_loss")
    assert len(losses) == EPOCHS
    assert len({metric.step for metric in losses}) == EPOCHS
    assert run.data.params["optimizer.epochs"] == str(EPOCHS)
    assert run.data.tags["data.fingerprint"]
    assert {file.path for file in told.list_artifacts(run.info.run_id)} == {"bundle", "config.yaml"}
    assert told.get_model_version_by_alias("mailray-smoke", "champion").version == "1"


def test_a_run_whose_tracker_is_killed_is_registered_later(home: Path, server: Server) -> None:
    server.start()
    with started(home, *TRAIN, MLFLOW_TRACKING_URI=server.uri) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("training") and server.process is not None:
                server.kill()
        process.wait(60)
        said = Said(process.returncode, "", "".join(told))
    assert server.process is None
    _trained_but_not_registered(home, said)
    server.start()
    _registered(home, server)


def test_a_run_whose_tracker_was_never_there_is_registered_later(
    home: Path, server: Server
) -> None:
    _trained_but_not_registered(home, _run(home, server.uri, *TRAIN))
    assert Run.read(home / "runs" / "run").tracked is None
    again = _run(home, server.uri, *RESUME)
    assert again.code == 1
    assert "`mailray train --resume --name run`" in again.err
    server.start()
    _registered(home, server)


def test_a_run_whose_tracker_hangs_comes_to_its_end(home: Path) -> None:
    with hanging() as address:
        said = _run(home, address, *TRAIN)
    _trained_but_not_registered(home, said)
    assert "timed out" in said.err


def test_a_tracker_that_comes_late_is_told_everything(home: Path, server: Server) -> None:
    place = home / "runs" / "run"
    place.mkdir(parents=True)
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        recorder = Recorder(Home(home), resolve(recipe="smoke"), "run", place, notes.append)
        for step in range(20):
            recorder.log({"loss": 1 / (step + 1)}, step)
        server.start()
        run_id = recorder.tracked()
        recorder.log({"loss": 0.0}, 20)
        deadline = time.monotonic() + 60
        recorder.close("FINISHED")
        assert time.monotonic() < deadline
    down, back = notes
    assert "does not answer" in down
    assert "answers again and was told what it had missed" in back
    told = MlflowClient(server.uri, server.uri)
    assert len(told.get_metric_history(run_id, "loss")) == 21
    assert told.get_run(run_id).info.status == "FINISHED"
