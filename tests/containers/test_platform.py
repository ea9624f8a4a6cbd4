"""What jobs leave in MLflow: rows in PostgreSQL, artifacts in a bucket; and a study."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.engine import podman
from tests.containers.namespace import Namespace
from tests.containers.nodes import RayCluster
from tests.containers.rights import check_rights, mounts

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(engine.missing()), reason=engine.missing()),
]
Note = Callable[[str, object], None]
USERS = {
    "mailray-redis": 999,
    "mailray-postgres": 999,
    "mailray-store": 1000,
    "mailray-mlflow": 1000,
}
WRITABLE = {
    "mailray-redis": {"/data", "/run/redis"},
    "mailray-postgres": {"/var/lib/postgresql/data", "/run/postgresql", "/tmp"},
    "mailray-store": {"/data"},
    "mailray-mlflow": {"/mailray", "/tmp"},
}


def query(namespace: Namespace, sql: str) -> list[list[str]]:
    """Rows of MLflow's database, read beside MLflow."""
    words = ("psql", "-U", "mlflow", "-d", "mlflow", "-At", "-c", sql)
    said = podman("exec", namespace.containers["mailray-postgres"], *words)
    return [line.split("|") for line in said.splitlines()]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", USERS)
def test_a_server_has_no_rights(namespace: Namespace, name: str) -> None:
    container = namespace.containers[name]
    check_rights(container, USERS[name])
    found = mounts(container)
    assert all("rw" in found[path] for path in WRITABLE[name])


def test_redis_wants_its_password(namespace: Namespace) -> None:
    container = namespace.containers["mailray-redis"]
    assert "NOAUTH" in podman("exec", container, "redis-cli", "ping")
    asked = ("sh", "-c", 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli ping')
    assert podman("exec", container, *asked) == "PONG"


def test_a_job_s_run_and_model_are_in_postgresql(
    namespace: Namespace, cluster: RayCluster, champion: str, record_property: Note
) -> None:
    [[run, status, metrics]] = query(
        namespace,
        "SELECT r.run_uuid, r.status, count(m.key) FROM runs r JOIN metrics m USING (run_uuid) "
        "WHERE r.name = 'real-mail' GROUP BY 1, 2",
    )
    assert status == "FINISHED"
    assert int(metrics) > 0
    [[version, alias, source]] = query(
        namespace,
        "SELECT v.version, a.alias, v.source FROM model_versions v JOIN registered_model_aliases a "
        f"ON a.name = v.name AND a.version = v.version WHERE v.name = '{champion}' "
        f"AND v.run_id = '{run}'",
    )
    assert alias == "champion"
    assert source.startswith("mlflow-artifacts:/")
    assert not list(cluster.home.glob("mlflow.db")), "the job has another tracker"
    record_property("found", f"run {run[:8]}, {metrics} metrics, {champion} version {version}")


def test_a_model_s_files_are_in_the_bucket(
    namespace: Namespace, cluster: RayCluster, champion: str, record_property: Note
) -> None:
    [bucket] = namespace.folder.glob("data-mailray-store/buckets/mailray")
    [[run]] = query(namespace, "SELECT run_uuid FROM runs WHERE name = 'real-mail'")
    [bundle] = bucket.glob(f"artifacts/*/{run}/artifacts/bundle")
    trained = cluster.home / "runs/real-mail/bundle"
    assert {file.name for file in bundle.iterdir()} == {file.name for file in trained.iterdir()}
    [weights] = trained.glob("*.safetensors")
    assert _sha256(bundle / weights.name) == _sha256(weights)
    assert not (cluster.home / "artifacts").exists()
    size = sum(file.stat().st_size for file in bundle.iterdir())
    record_property(
        "found", f"{len(list(bundle.iterdir()))} files, {size / 1e6:.1f} MB, as trained"
    )


def test_a_study_from_outside_ends_well(
    namespace: Namespace, cluster: RayCluster, record_property: Note
) -> None:
    said = cluster.submit(
        "tune", "--recipe", "random", "train=smoke", "trials=3", "optimizer.epochs=2",
        "optimizer.patience=2", "--name", "small-study", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    [told] = re.findall(r'^\{"name".*\}$', said.err, re.M)
    points = json.loads(told)["points"]
    assert len(points) == 3
    assert all(point["states"] == ["done"] and point["values"] for point in points)
    rows = query(
        namespace,
        "SELECT r.status FROM runs r JOIN tags t USING (run_uuid) JOIN runs p ON p.run_uuid = "
        "t.value WHERE t.key = 'mlflow.parentRunId' AND p.name = 'small-study'",
    )
    assert rows == [["FINISHED"]] * 3, "each trial is a run below the study's"
    [[version]] = query(
        namespace,
        "SELECT v.version FROM model_versions v JOIN runs r ON r.run_uuid = v.run_id "
        "WHERE r.name = 'small-study'",
    )
    best = min(point["values"]["val_loss"] for point in points)
    record_property("found", f"3 trials, the best at {best:.4f}, its model version {version}")
