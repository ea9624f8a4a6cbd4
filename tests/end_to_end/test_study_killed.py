"""A study whose driver is killed, again and again: every trial once, the same best settings."""

import json
import random
import time
from pathlib import Path

import pytest

from tests.end_to_end.terminal import run, started

pytestmark = pytest.mark.slow

TRIALS = 12
KILLS = 3
TUNE = (
    "tune", "--recipe", "asha", "--name", "s", "train=smoke", f"trials={TRIALS}", "concurrent=1",
    "optimizer.epochs=3", "space={optimizer.lr: {loguniform: [1.0e-5, 5.0e-3]}}",
)  # fmt: skip


def _told(home: Path) -> int:
    """Epochs that trials have told so far."""
    files = (home / "runs/s/trials").glob("*/results.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def test_a_study_killed_three_times_ends_as_an_unbroken_one(home: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *TUNE, "--json")
    assert whole.code == 0, whole.err
    expected = whole.json
    total = int(expected["cost"]["epochs"])

    chance = random.Random(0)
    moments = sorted(chance.sample(range(1, total), KILLS))
    words: tuple[str, ...] = TUNE
    for moment in moments:
        with started(home, *words) as process:
            deadline = time.monotonic() + 240
            while _told(home) < moment:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, f"{_told(home)} of {total} epochs"
                time.sleep(0.02)
            time.sleep(chance.random())
            process.kill()
        words = ("tune", "--resume", "s")
    last = run(home, *words, "--json")
    assert last.code == 0, last.err

    assert len(last.json["points"]) == TRIALS
    for key in ("settings", "values", "states", "epochs"):
        got = [point[key] for point in last.json["points"]]
        assert got == [point[key] for point in expected["points"]], key
    assert last.json["best"]["weights"] == expected["best"]["weights"]
    done = [file.read_text().splitlines() for file in (home / "runs/s").glob("*/*/results.jsonl")]
    assert sum(map(len, done)) == total, "no epoch was counted twice"
    assert json.loads((home / "runs/s/study.json").read_text())["done"]

    again = run(home, "tune", "--resume", "s")
    assert again.code == 2
    assert "study s is finished" in again.err
