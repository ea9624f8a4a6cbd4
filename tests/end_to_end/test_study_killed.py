"""A study whose driver or trials are killed: every epoch once, the same best settings."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.terminal import processes, run, started

pytestmark = pytest.mark.slow

TRIALS = 12
KILLS = 3
TUNE = (
    "tune", "--recipe", "asha", "--name", "s", "train=smoke", f"trials={TRIALS}", "concurrent=1",
    "optimizer.epochs=3", "space={optimizer.lr: {loguniform: [1.0e-5, 5.0e-3]}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the study says where nobody disturbs it."""
    said = run(tmp_path_factory.mktemp("unbroken"), *TUNE, "--json")
    assert said.code == 0, said.err
    return said.json


def _told(home: Path) -> int:
    """Epochs that trials have told so far."""
    files = (home / "runs/s/trials").glob("*/results.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def _until(home: Path, epochs: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while _told(home) < epochs:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{_told(home)} epochs"
        time.sleep(0.02)


def _is_the_same(got: Any, expected: Any) -> None:
    assert len(got["points"]) == TRIALS
    for key in ("settings", "values", "states", "epochs"):
        values = [point[key] for point in got["points"]]
        assert values == [point[key] for point in expected["points"]], key
    assert got["best"]["weights"] == expected["best"]["weights"]


def _moments(unbroken: Any) -> list[int]:
    """Epochs of the study, in order, at which something is killed."""
    return sorted(random.Random(0).sample(range(1, int(unbroken["cost"]["epochs"])), KILLS))


def test_a_study_killed_three_times_ends_as_an_unbroken_one(home: Path, unbroken: Any) -> None:
    words: tuple[str, ...] = TUNE
    for moment in _moments(unbroken):
        with started(home, *words) as process:
            _until(home, moment, process)
            time.sleep(random.Random(moment).random())
            process.kill()
        words = ("tune", "--resume", "s")
    last = run(home, *words, "--json")
    assert last.code == 0, last.err
    _is_the_same(last.json, unbroken)
    assert _told(home) == unbroken["cost"]["epochs"], "no epoch was counted twice"
    assert json.loads((home / "runs/s/study.json").read_text())["done"]

    again = run(home, "tune", "--resume", "s")
    assert again.code == 2
    assert "study s is finished" in again.err


def test_trials_whose_process_dies_go_on(home: Path, unbroken: Any) -> None:
    with started(home, *TUNE, "--json") as process:
        for moment in _moments(unbroken):
            _until(home, moment, process)
            for pid in processes(home, "ImplicitFunc"):
                os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    _is_the_same(json.loads(out), unbroken)
