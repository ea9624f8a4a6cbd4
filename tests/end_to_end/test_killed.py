"""Runs whose processes are killed: the same weights, and every mail exactly once an epoch."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.terminal import processes, run, started
from training import audit

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MAILRAY_KILLS", "4"))
"""20 take four minutes more, which `.ci/run` has not."""
EPOCHS = 8
"""Long enough on any machine: workers train on until they notice that their controller is dead."""
TRAIN = (
    "train", "--recipe", "smoke", "--name", "run", "--json", "data.source=synthetic:1600",
    f"optimizer.epochs={EPOCHS}", f"optimizer.patience={EPOCHS}", "batching.size=8",
    "model.dropout=0.1",
    "scaling.checkpoint_steps=7", "scaling.max_failures=99", "tracking.audit=true",
)  # fmt: skip


def _steps(home: Path, since: int) -> int:
    """Steps that rank 0 of a group of workers has begun, which was started after a time in ns."""
    files = (home / "runs" / "run" / "audit").glob("*-0-*.jsonl")
    return sum(f.read_bytes().count(b"\n") for f in files if int(f.name.partition("-")[0]) > since)


def _until_steps(home: Path, process: "subprocess.Popen[str]", steps: int, since: int) -> bool:
    """Whether workers started since then do so many steps before the run comes to its end."""
    deadline = time.monotonic() + 120
    while _steps(home, since) < steps:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no step within two minutes"
        time.sleep(0.02)
    return True


def _kill(home: Path, victim: str, process: "subprocess.Popen[str]") -> None:
    pids = [process.pid]
    if victim != "driver":
        title = {"worker": "RayTrainWorker", "controller": "TrainController"}[victim]
        pids = processes(home, title)
        assert pids, f"no {victim} is running"
    os.kill(random.choice(pids), signal.SIGKILL)


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[tuple[int, int], list[int]]]:
    """The weights of a run that nobody disturbed, and the mails of its steps."""
    home = tmp_path_factory.mktemp("unbroken")
    said = run(home, *TRAIN)
    assert said.code == 0, said.err
    return said.json["weights"], audit.steps(home / "runs" / "run")


def test_a_run_killed_at_random_steps_ends_with_the_same_weights(
    home: Path, unbroken: tuple[str, dict[tuple[int, int], list[int]]]
) -> None:
    weights, steps = unbroken
    chance = random.Random(0)
    victims = [("worker", "controller", "driver")[n % 3] for n in range(KILLS)]
    more: tuple[str, ...] = ()
    killed = 0
    while True:
        with started(home, *TRAIN, *more) as process:
            while victims and _until_steps(home, process, chance.randint(8, 40), killed):
                victim = victims.pop()
                killed = time.time_ns()
                _kill(home, victim, process)
                if victim == "driver":
                    break
            else:
                out, err = process.communicate(timeout=240)
                assert process.returncode == 0, err
                break
        more = ("--resume",)
    assert not victims, f"the run ended before it was killed {len(victims)} more times"
    assert audit.steps(home / "runs" / "run") == steps
    assert json.loads(out)["weights"] == weights
    kept = json.loads((home / "runs" / "run" / "bundle" / "bundle.json").read_text("utf-8"))
    assert [row["epoch"] for row in kept["epochs"]] == list(range(1, EPOCHS + 1))


def test_every_mail_stands_once_in_each_epoch(
    unbroken: tuple[str, dict[tuple[int, int], list[int]]],
) -> None:
    _, steps = unbroken
    epochs = [[rows for (at, _), rows in steps.items() if at == epoch] for epoch in range(EPOCHS)]
    first = sorted(np.concatenate(epochs[0]).tolist())
    assert len(first) == len(set(first)) > 1000
    assert all(sorted(np.concatenate(rows).tolist()) == first for rows in epochs)


def test_the_seed_decides_the_weights(
    home: Path, tmp_path: Path, unbroken: tuple[str, dict[tuple[int, int], list[int]]]
) -> None:
    weights, _ = unbroken
    again = run(home, *TRAIN)
    other = run(tmp_path / "other", *TRAIN, "seed=1")
    assert (again.code, other.code) == (0, 0), again.err + other.err
    assert again.json["weights"] == weights
    assert other.json["weights"] != weights


def test_three_workers_one_of_them_killed_end_with_the_same_weights(
    home: Path, tmp_path: Path
) -> None:
    """Of three gradients the order of the sum matters; of two there is only one."""
    words = (*TRAIN, "optimizer.epochs=1", "scaling.workers=3")
    unbroken = run(tmp_path / "unbroken", *words)
    assert unbroken.code == 0, unbroken.err
    with started(home, *words) as process:
        assert _until_steps(home, process, 20, 0)
        _kill(home, "worker", process)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "up again" in err
    assert json.loads(out)["weights"] == unbroken.json["weights"]
