"""A head and two workers as KubeRay makes them from `k8s/`, and jobs from outside."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.nodes import RayCluster, until
from tests.containers.rights import check_rights, mounts

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
"""Two workers of one CPU, which Ray packs on one node; three are killed in tests/end_to_end."""


def _steps(cluster: RayCluster, run: str) -> int:
    """Lines that rank 0 has written of the steps it has begun."""
    files = (cluster.home / "runs" / run / "audit").glob("*-0-*.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def _weights(home: Path, run: str) -> str:
    """The SHA-256 of the weights that a run left."""
    [file] = (home / "runs" / run / "bundle").glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster) -> str:
    """The weights of a run that nobody disturbs."""
    said = cluster.submit(*TRAIN, "--name", "undisturbed")
    assert said.code == 0, said.err
    return _weights(cluster.home, "undisturbed")


def test_each_container_has_no_rights_and_no_writable_root(
    cluster: RayCluster, record_property: Note
) -> None:
    limits = set()
    for container in (cluster.head, *cluster.workers):
        check_rights(container, 1000)
        found = mounts(container)
        assert {"rw"} <= set(found["/mailray"]) & set(found["/tmp"])
        facts = cluster.facts(container)["HostConfig"]
        limits.add((facts["Memory"] >> 30, facts["NanoCpus"] / 1e9))
    assert limits == {(4, 1.0), (4, 2.0)}
    record_property("found", "uid 1000, no capabilities, / read-only, no new privileges, seccomp")


def test_a_job_from_outside_trains(
    cluster: RayCluster, undisturbed: str, record_property: Note
) -> None:
    bundle = cluster.home / "runs" / "undisturbed" / "bundle"
    assert bundle.stat().st_uid == 1000
    record_property("found", f"weights {undisturbed[:12]}")


def test_a_job_that_fails_brings_its_exit_code(cluster: RayCluster) -> None:
    said = cluster.submit("train", "optimizer.speed=3")
    assert said.code == 2, said.err
    assert "no such key" in said.err


def test_a_job_that_loses_a_worker_ends_with_the_same_weights(
    cluster: RayCluster, undisturbed: str, record_property: Note
) -> None:
    audit = cluster.home / "runs" / "disturbed" / "audit"
    begun = time.monotonic()
    process = cluster.submitted(*TRAIN, "--name", "disturbed")
    try:
        until("a step", lambda: _steps(cluster, "disturbed") > 0, seconds=240, every=0.05)
        waited = time.monotonic() - begun
        until("steps", lambda: _steps(cluster, "disturbed") > 150, seconds=240, every=0.05)
        victim = next(name for name in cluster.workers if _trains(cluster, name))
        assert process.poll() is None, "over before the kill"
        cluster.kill_worker(victim)
        killed = time.monotonic()
        cluster.add_worker()
        until("a new start", lambda: len(_starts(audit)) > 1, seconds=300, every=0.05)
        back = time.monotonic() - killed
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert _weights(cluster.home, "disturbed") == undisturbed
    word = "within" if waited <= SUBMIT_SECONDS else "over"
    record_property(
        "found",
        f"first step {waited:.1f} s after submit, {word} {SUBMIT_SECONDS}; trains again "
        f"{back:.0f} s after the kill; weights {undisturbed[:12]} as without it",
    )


def _trains(cluster: RayCluster, container: str) -> bool:
    """Whether a training worker runs in a container."""
    return "RayTrainWorker" in cluster.run_in(container, "bash", "-c", "cat /proc/[0-9]*/cmdline")


def _starts(audit: Path) -> set[str]:
    """When the training workers were started, once for each time that any was lost."""
    return {file.name.partition("-")[0] for file in audit.glob("*.jsonl") if file.stat().st_size}
