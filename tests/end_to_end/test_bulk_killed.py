"""Bulk classification whose driver or models are killed: every mail once, the same verdicts."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.terminal import processes, run, started
from training.bundle import save
from training.config import resolve
from training.model import build
from training.weights import tokenizer

pytestmark = pytest.mark.slow

MAILS = 12_000
KILLS = 3
PARTS = 47
"""Of 256 mails at most: eleven pieces of 1,024 mails, and one of 736."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights."""
    config = resolve(recipe="smoke")
    model = build(config.model, 2, config.data.max_length)
    path: Path = tmp_path_factory.mktemp("model") / "bundle"
    return save(path, model, tokenizer("tiny"), config, version="1", metrics={}).path


def _words(model: Path, out: Path) -> tuple[str, ...]:
    words = ("classify", "--bulk", f"synthetic:{MAILS}", "--out", str(out))
    return (*words, "--model", str(model), "--workers", "2")


def _parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def _until(out: Path, parts: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while _parts(out) < parts:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{_parts(out)} parts"
        time.sleep(0.01)


def _rows(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(out.glob("part-*.parquet"))])


def _moments() -> list[int]:
    """Numbers of parts at which something is killed."""
    return sorted(random.Random(0).sample(range(1, PARTS - 4), KILLS))


@pytest.fixture(scope="module")
def unbroken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows where nobody disturbs it."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    said = run(out.parent / "home", *_words(model, out), "--json")
    assert said.code == 0, said.err
    assert (said.json["mails"], said.json["errors"]) == (MAILS, 0)
    rows = _rows(out)
    assert rows["id"].to_pylist() == [f"synthetic/{number:06d}" for number in range(MAILS)]
    assert _parts(out) == PARTS
    return rows


def test_a_killed_command_goes_on_with_the_same_command(
    home: Path, model: Path, tmp_path: Path, unbroken: pa.Table
) -> None:
    out = tmp_path / "out"
    words = _words(model, out)
    for moment in _moments():
        with started(home, *words) as process:
            _until(out, moment, process)
            process.kill()
        assert not (out / "summary.json").exists()
    last = run(home, *words, "--json")
    assert last.code == 0, last.err
    assert 0 < last.json["scored"] < MAILS
    assert _rows(out).equals(unbroken)
    assert not list(out.glob(".part-*"))
    assert (out / "summary.json").exists()


def test_models_whose_process_dies_are_begun_anew(
    home: Path, model: Path, tmp_path: Path, unbroken: pa.Table
) -> None:
    out = tmp_path / "out"
    with started(home, *_words(model, out), "--json") as process:
        for moment in _moments():
            _until(out, moment, process)
            killed = processes(home, "MapWorker(MapBatches(Score))")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        assert killed
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert _rows(out).equals(unbroken)
