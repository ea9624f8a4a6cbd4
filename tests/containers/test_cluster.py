"""A head and two workers as KubeRay makes them from `k8s/`, and jobs from outside."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.nodes import RayCluster, until

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(engine.missing()), reason=engine.missing()),
]
Note = Callable[[str, object], None]
SUBMIT_SECONDS = 15
"""From `mailray submit` to the first training step, on a warm cluster: the goal, not a bound."""
TRAIN = (
    "train", "--recipe", "smoke", "data.source=synthetic:1600", "optimizer.epochs=4",
    "optimizer.patience=4", "batching.size=8", "model.dropout=0.1", "scaling.checkpoint_steps=7",
    "scaling.max_failures=9", "tracking.audit=true",
)  # fmt: skip


def _steps(cluster: RayCluster, run: str) -> int:
    """Lines that rank 0 has written of the steps it has begun."""
    files = (cluster.home / "runs" / run / "audit").glob("*-0-*.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def _weights(home: Path, run: str) -> str:
    """The SHA-256 of the weights that a run left."""
    [file] = (home / "runs" / run / "bundle").glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster) -> tuple[str, float]:
    """The weights of a run that nobody disturbs, and the seconds until its first step."""
    said = cluster.submit("train", "--recipe", "smoke", "--name", "warm")
    assert said.code == 0, said.err
    begun = time.monotonic()
    process = cluster.submitted(*TRAIN, "--name", "undisturbed")
    try:
        until("a step", lambda: _steps(cluster, "undisturbed") > 0, seconds=240, every=0.05)
        waited = time.monotonic() - begun
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return _weights(cluster.home, "undisturbed"), waited


def test_each_container_has_no_rights_and_no_writable_root(
    cluster: RayCluster, record_property: Note
) -> None:
    limits = set()
    for container in (cluster.head, *cluster.workers):
        status = cluster.run_in(container, "cat", "/proc/1/status").splitlines()
        fields = {key: value.split() for key, _, value in (line.partition(":") for line in status)}
        assert set(fields["Uid"]) == {"1000"}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(fields[kind][0], 16) == 0, kind
        assert fields["NoNewPrivs"] == ["1"]
        assert fields["Seccomp"] == ["2"], "filtered"
        mounts = cluster.run_in(container, "cat", "/proc/1/mounts").splitlines()
        options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
        assert "ro" in options["/"]
        assert {"rw"} <= set(options["/mailray"]) & set(options["/tmp"])
        facts = cluster.facts(container)["HostConfig"]
        limits.add((facts["Memory"] >> 30, facts["NanoCpus"] / 1e9))
    assert limits == {(4, 1.0), (4, 2.0)}
    record_property("found", "uid 1000, no capabilities, / read-only, no new privileges, seccomp")


def test_a_job_from_outside_trains(
    cluster: RayCluster, undisturbed: tuple[str, float], record_property: Note
) -> None:
    _, waited = undisturbed
    word = "within" if waited <= SUBMIT_SECONDS else "over"
    record_property("found", f"first step after {waited:.1f} s, {word} {SUBMIT_SECONDS}")
    owner = (cluster.home / "runs" / "undisturbed" / "bundle").stat().st_uid
    assert owner == 1000


def test_a_job_that_fails_brings_its_exit_code(cluster: RayCluster) -> None:
    said = cluster.submit("train", "optimizer.speed=3")
    assert said.code == 2, said.err
    assert "no such key" in said.err


def test_a_job_that_loses_a_worker_ends_with_the_same_weights(
    cluster: RayCluster, undisturbed: tuple[str, float], record_property: Note
) -> None:
    weights, _ = undisturbed
    process = cluster.submitted(*TRAIN, "--name", "disturbed")
    try:
        until("steps", lambda: _steps(cluster, "disturbed") > 200, seconds=240, every=0.05)
        assert process.poll() is None, "over before the kill"
        cluster.kill_worker(cluster.workers[0])
        killed = time.monotonic()
        before = _steps(cluster, "disturbed")
        cluster.add_worker()
        until("more steps", lambda: _steps(cluster, "disturbed") > before, seconds=300, every=0.05)
        back = time.monotonic() - killed
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert _weights(cluster.home, "disturbed") == weights
    starts = {f.name.partition("-")[0] for f in
              (cluster.home / "runs" / "disturbed" / "audit").glob("*.jsonl")}  # fmt: skip
    assert len(starts) > 1, "the workers were started anew"
    record_property("found", f"trains again {back:.0f} s after the kill; {weights[:12]} both times")
