"""Trackers that are there, down, slow, or come back: all is told, and nobody waits."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.end_to_end.mlflow_server import hanging
from training import gauges, tracking
from training.config import TrainConfig, resolve
from training.home import Home
from training.provenance import commit
from training.recorder import Recorder
from training.schema import ConfigError
from training.trackers import outbox, wandb
from training.trackers.outbox import Outbox
from training.tracking import TrackingError, client


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (0.02,))
    monkeypatch.setattr(tracking, "ANSWER_SECONDS", 0.3)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def box(notes: list[str]) -> Iterator[Outbox]:
    made = Outbox("it", notes.append)
    yield made
    made.close(0)


def _recorder(here: Home, notes: list[str], *overrides: str, run_id: str | None = None) -> Recorder:
    config: TrainConfig = resolve(recipe="smoke", overrides=overrides)
    place = here.runs / "run"
    place.mkdir(parents=True, exist_ok=True)
    return Recorder(
        here, config, "run", place, notes.append, tags={"commit": "abc-dirty", "cpu": "2 x slow"},
        run_id=run_id,
    )  # fmt: skip


def test_calls_are_made_in_their_order(box: Outbox) -> None:
    said: list[int] = []
    for number in range(100):
        box.put(lambda number=number: said.append(number))  # type: ignore[misc]
    assert box.settle(10)
    assert said == list(range(100))


def test_what_a_tracker_misses_it_is_told_when_it_answers(box: Outbox, notes: list[str]) -> None:
    there, said = Event(), []

    def call(number: int) -> None:
        if not there.is_set():
            raise TrackingError("it does not answer: asleep")
        said.append(number)

    for number in range(5):
        box.put(lambda number=number: call(number))  # type: ignore[misc]
        assert not box.settle(10)
    assert said == []
    there.set()
    assert box.settle(10)
    assert said == [0, 1, 2, 3, 4]
    time.sleep(0.1)
    assert notes == [
        "it does not answer: asleep; the run goes on, and tells it later what it misses",
        "it answers again and was told what it had missed",
    ]


def test_what_a_tracker_refuses_is_left_out(box: Outbox, notes: list[str]) -> None:
    tried, said = [], []

    def refused() -> None:
        tried.append(1)
        raise ValueError("no such thing\nand more")

    box.put(refused)
    box.put(lambda: said.append(1))
    assert box.settle(10)
    assert (len(tried), said) == (3, [1])
    assert notes == ["it refuses some of what it is told, which is left out: no such thing"]


def test_nobody_waits_for_a_call_that_hangs(box: Outbox, notes: list[str]) -> None:
    over = Event()

    def hang() -> None:
        over.wait(30)

    box.put(hang)
    began = time.monotonic()
    for _ in range(1000):
        box.put(lambda: None)
    box.close(0.2)
    assert time.monotonic() - began < 5
    assert notes == ["it was not told 1001 of the things that it should keep"]
    over.set()


def test_a_tracker_that_is_slow_but_takes_all_is_waited_for(box: Outbox) -> None:
    for _ in range(10):
        box.put(lambda: time.sleep(0.1))
    assert box.settle(0.3), "a second altogether, but never longer than that without a word"


def test_a_run_is_told_to_mlflow_and_to_tensorboard(home: Path, notes: list[str]) -> None:
    here = Home(home)
    recorder = _recorder(here, notes)
    recorder.log({"loss": 0.5, "roc_auc": float("nan"), "name": "x", "best": True}, 16)
    run_id = recorder.tracked()
    recorder.close("FINISHED")
    recorder = _recorder(here, notes, run_id=run_id)
    recorder.missed([{"seen": 32, "val_loss": 0.1, "best": True}])
    recorder.missed([{"seen": 32, "val_loss": 0.1, "best": True}])
    assert recorder.tracked() == run_id
    recorder.close("FAILED")
    told = client(here)
    found = told.get_run(run_id)
    assert found.info.status == "FAILED"
    assert found.data.metrics == {"loss": 0.5, "val_loss": 0.1}
    assert len(told.get_metric_history(run_id, "val_loss")) == 1
    assert found.data.params["optimizer.lr"]
    assert found.data.tags["commit"] == "abc-dirty"
    assert found.data.tags["mlflow.source.git.commit"] == "abc"
    assert [file.path for file in told.list_artifacts(run_id)] == ["config.yaml"]
    assert list((here.runs / "run" / "tensorboard").iterdir())
    assert notes == []
    with pytest.raises(TrackingError, match=r"does not know run 0{32} of run; set MLFLOW_TRACKING"):
        _recorder(here, notes, run_id="0" * 32)


def test_a_run_goes_on_where_nobody_answers(
    home: Path, notes: list[str], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    _is_not_stopped(Home(home), notes, "Connection refused")


def test_a_run_goes_on_where_somebody_is_silent(
    home: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        _is_not_stopped(Home(home), notes, "timed out")


def _is_not_stopped(here: Home, notes: list[str], reason: str) -> None:
    began = time.monotonic()
    recorder = _recorder(here, notes)
    for step in range(1000):
        recorder.log({"loss": 1 / (step + 1)}, step)
    with pytest.raises(TrackingError, match=f"does not answer: .*{reason}"):
        recorder.tracked()
    recorder.close("FINISHED")
    assert time.monotonic() - began < 30
    assert len(notes) == 2, notes
    assert reason in notes[0]
    assert "the run goes on" in notes[0]
    assert "was not told" in notes[1]
    [file] = (here.runs / "run" / "tensorboard").iterdir()
    assert file.stat().st_size > 10_000


def test_weights_and_biases_works_offline(
    home: Path, notes: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    here = Home(home)
    before = _children()
    recorder = _recorder(here, notes, "tracking.wandb=true")
    recorder.log({"loss": 0.5}, 16)
    recorder.log({"loss": 0.4}, 8)  # of an epoch that is trained once more
    recorder.close("FINISHED")
    [kept] = (here.runs / "run" / "wandb").glob("offline-run-*")
    [file] = kept.glob("*.wandb")
    said = file.read_bytes()
    assert b"optimizer.lr" in said
    assert said.count(b"seen") >= 2
    assert (kept / "files" / "mailray" / "config.yaml").is_file()
    said_here = capfd.readouterr()
    assert (said_here.out, notes) == ("", [])
    assert "wandb" not in said_here.err
    deadline = time.monotonic() + 10
    while (left := _children() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_weights_and_biases_without_network_is_kept_for_later(
    home: Path, notes: list[str], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setattr(wandb, "_INIT_SECONDS", 2)
    here = Home(home)
    recorder = _recorder(here, notes, "tracking.wandb=true")
    recorder.log({"loss": 0.5}, 16)
    recorder.close("FINISHED")
    assert list((here.runs / "run" / "wandb").glob("offline-run-*/*.wandb"))
    [note] = notes
    assert note.startswith("Weights & Biases does not answer: ")
    assert note.endswith("for `wandb sync`")


def test_weights_and_biases_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve(recipe="smoke", overrides=["tracking.wandb=true"]).tracking
    wandb.check(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking\.wandb: .* pip install 'mailray\[wandb\]'"):
        wandb.check(config)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _git(folder: Path, *words: str) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", str(folder), *own, *words], check=True, capture_output=True)


def test_the_commit_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILRAY_REVISION", "of-the-image")
    file, other = tmp_path / "code.py", tmp_path / "site-packages.py"
    for path in (file, other):
        path.write_text("1")
    assert commit(file) == "of-the-image"
    _git(tmp_path, "init")
    _git(tmp_path, "add", "code.py")
    _git(tmp_path, "commit", "-m", "x")
    clean = commit(file)
    assert clean is not None
    assert len(clean) == 40
    assert commit(other) == "of-the-image", "it only lies there"
    file.write_text("2")
    assert commit(file) == f"{clean}-dirty"
    monkeypatch.delenv("MAILRAY_REVISION")
    assert commit(other) is None


def test_gauges_read_as_long_as_the_block_lasts() -> None:
    heard: list[dict[str, float]] = []
    with gauges.Gauges(heard.append, seconds=0.05):
        time.sleep(0.3)
    assert len(heard) >= 2
    for reading in heard:
        assert 0 <= reading["system/cpu_utilization_percentage"] <= 100 * (os.cpu_count() or 1)
        assert 0 < reading["system/system_memory_usage_percentage"] < 100
    count = len(heard)
    time.sleep(0.15)
    assert len(heard) == count


def test_a_gauge_that_a_gpu_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent(gpu: Any) -> Any:
        raise pynvml.NVMLError(3)

    made = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetName": lambda gpu: "H100",
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=20e9, total=80e9),
        "nvmlDeviceGetUtilizationRates": absent,
        "nvmlDeviceGetPowerUsage": lambda gpu: 250_000,
    }
    for name, made_up in made.items():
        monkeypatch.setattr(pynvml, name, made_up)
    read = {key: value for key, value in gauges.reading().items() if "gpu" in key}
    assert read == {
        "system/gpu_0_memory_usage_megabytes": 20_000,
        "system/gpu_0_memory_usage_percentage": 25,
        "system/gpu_0_power_usage_watts": 250,
    }
    assert gauges.gpu_names() == ["H100"]
