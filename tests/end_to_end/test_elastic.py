"""Runs whose nodes come and go: the same batches, the same result, nothing lost by a notice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import unused_port
from tests.end_to_end.terminal import run, started
from training import audit, checkpoint

pytestmark = pytest.mark.slow

TRAIN = (
    "train", "--recipe", "smoke", "--name", "run", "--json", "data.source=synthetic:6000",
    "batching.size=8", "model.dropout=0", "scaling.precision=fp32", "scaling.checkpoint_steps=20",
    "scaling.resize_seconds=1", "scaling.max_failures=9", "tracking.audit=true",
)  # fmt: skip

OPEN = {"RAY_AUTH_MODE": "disabled"}
"""Whether or not this user has a token."""


@contextmanager
def _node(*words: str) -> Iterator[None]:
    """A node with one CPU, killed with all its processes at the end."""
    program = str(Path(sys.executable).with_name("ray"))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        # The agent's port is fixed by default: two nodes of one machine would fight for it.
        [
            program,
            "start",
            "--block",
            "--num-cpus=1",
            f"--dashboard-agent-listen-port={unused_port()}",
            *words,
        ],
        env=kept | OPEN | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_world(home: Path, world: int, since: int, process: "subprocess.Popen[str]") -> None:
    """Until so many workers, started since then, have done some steps."""
    deadline = time.monotonic() + 180
    while True:
        logs = (home / "runs" / "run" / "audit").glob(f"*-0-{world}.jsonl")
        if any(
            int(log.name.partition("-")[0]) > since and log.read_bytes().count(b"\n") > 25
            for log in logs
        ):
            return
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{world} workers have not started"
        time.sleep(0.05)


@pytest.fixture
def head_address() -> Iterator[str]:
    """The address of a head with one CPU."""
    address = f"127.0.0.1:{(port := unused_port())}"
    folder = tempfile.mkdtemp(prefix="mr", dir="/tmp")
    ports = [f"--{name}={unused_port()}" for name in ("dashboard-port", "ray-client-server-port")]
    with _node("--head", f"--temp-dir={folder}", f"--port={port}", *ports):
        time.sleep(8)
        yield address
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_loses_a_worker_and_gets_it_back(
    home: Path, tmp_path: Path, head_address: str
) -> None:
    fixed_home = tmp_path / "fixed"
    fixed = run(fixed_home, *TRAIN, "scaling.workers=2")
    assert fixed.code == 0, fixed.err

    with ExitStack() as stack:
        node = stack.enter_context(ExitStack())
        node.enter_context(_node(f"--address={head_address}"))
        time.sleep(5)
        process = stack.enter_context(
            started(home, *TRAIN, "scaling.workers=1..2", **OPEN, RAY_ADDRESS=head_address)
        )
        _until_world(home, 2, 0, process)
        node.close()
        lost = time.time_ns()
        _until_world(home, 1, lost, process)
        node.enter_context(_node(f"--address={head_address}"))
        _until_world(home, 2, lost, process)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "training goes on with 1 worker (2 before)" in err
    assert "training goes on with 2 workers (1 before)" in err
    assert audit.steps(home / "runs" / "run") == audit.steps(fixed_home / "runs" / "run")
    losses = [said["metrics"]["validation"]["loss"] for said in (json.loads(out), fixed.json)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_node_that_is_to_go_leaves_a_checkpoint(home: Path, head_address: str) -> None:
    """No other is due within the epoch; the notice comes, and some seconds later the node goes."""
    rare = ("scaling.checkpoint_steps=0", "scaling.checkpoint_minutes=60")
    size = ("data.source=synthetic:20000", "optimizer.epochs=1")
    kept = home / "runs" / "run" / "checkpoints"
    with ExitStack() as stack:
        node = stack.enter_context(ExitStack())
        node.enter_context(_node(f"--address={head_address}"))
        time.sleep(5)
        words = (*TRAIN, "scaling.workers=1..2", *rare, *size)
        process = stack.enter_context(started(home, *words, **OPEN, RAY_ADDRESS=head_address))
        _until_world(home, 2, 0, process)
        _drain(head_address, seconds=30)
        deadline = time.monotonic() + 25
        while (found := checkpoint.latest(kept)).path is None:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint within the notice"
            time.sleep(0.1)
        assert found.path.name.startswith("e000-s"), found.path
        node.close()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (again,) = [line for line in err.splitlines() if "training goes on with 1 worker" in line]
    assert "from epoch 1, step 1," not in again
    assert json.loads(out)["metrics"]["test"]["accuracy"] > 0.8


def _drain(address: str, seconds: int) -> None:
    """Give notice to the node that is not the head, as a cloud's node agent does."""
    lister = (
        "import ray, sys; ray.init(sys.argv[1], log_to_driver=False);"
        "print([n['NodeID'] for n in ray.nodes() if n['Alive']"
        " and 'node:__internal_head__' not in n['Resources']][0])"
    )
    env = os.environ | OPEN
    listed = subprocess.run(
        [sys.executable, "-c", lister, address], env=env, capture_output=True, text=True, check=True
    )
    subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={address}",
         f"--node-id={listed.stdout.split()[-1]}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message=test", f"--deadline-remaining-seconds={seconds}"],
        env=env, capture_output=True, check=True,
    )  # fmt: skip
