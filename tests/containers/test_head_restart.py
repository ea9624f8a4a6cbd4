"""The classifier as RayService deploys it: it answers while the head is lost and comes back."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.manifests import render
from tests.containers import engine
from tests.containers.engine import podman
from tests.containers.nodes import RayCluster, one, until

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(engine.missing()), reason=engine.missing()),
]
Note = Callable[[str, object], None]
MODEL = "mailray-smoke@champion"
REDIS = (
    "FROM {base}\nRUN apt-get update && apt-get install -y --no-install-recommends redis-server\n"
)
MAIL = {"subject": "Prize", "from": "a@example.com", "body": "Claim it now"}


@pytest.fixture(scope="module")
def service(place: Path, image: str) -> Iterator[tuple[RayCluster, dict[str, object]]]:
    """The cluster of the RayService, with Redis beside it, and what it is to serve."""
    file = place / "redis.Dockerfile"
    file.write_text(REDIS.format(base=engine.base(place)))
    redis = "localhost/mailray-test-redis"
    podman("build", "-q", "--network=host", "-f", str(file), "-t", redis, str(place), timeout=300)
    document = one(render(engine.ROOT / "k8s/overlays/dev/serving"), "RayService")
    spec = document["spec"]["rayClusterConfig"]
    manifest = {"metadata": document["metadata"], "spec": spec}
    served = yaml.safe_load(document["spec"]["serveConfigV2"])
    served["applications"][0]["args"]["model"] = MODEL
    # SQLite on the claim instead of the MLflow server.
    env = {"REDIS_PASSWORD": "", "MLFLOW_TRACKING_URI": ""}
    cluster = RayCluster(place / "service", image=image, manifest=manifest, env=env)
    host = spec["gcsFaultToleranceOptions"]["redisAddress"].partition(":")[0]
    command = ["redis-server", "--protected-mode", "no", "--save", ""]
    cluster.beside = [["--network-alias", host, redis, *command]]
    with cluster:
        yield cluster, served


def test_the_classifier_answers_while_the_head_is_lost(
    service: tuple[RayCluster, dict[str, object]], record_property: Note
) -> None:
    cluster, served = service
    said = cluster.submit("train", "--recipe", "smoke")
    assert said.code == 0, said.err
    headers = {"Authorization": f"Bearer {cluster.token}"}

    def application() -> dict[str, object]:
        url = f"{cluster.url(cluster.head, 8265)}/api/serve/applications/"
        answer: dict[str, object] = httpx.get(url, headers=headers).json()["applications"][
            "mailray"
        ]
        return answer

    def running() -> bool:
        try:
            return application()["status"] == "RUNNING"
        except (httpx.HTTPError, KeyError, ValueError):
            return False

    put = f"{cluster.url(cluster.head, 8265)}/api/serve/applications/"
    httpx.put(put, json=served, headers=headers, timeout=30).raise_for_status()
    until("a running application", running, seconds=180)

    codes: list[int] = []
    over = threading.Event()

    def ask() -> None:
        urls = [cluster.url(container, 8000) for container in cluster.workers]
        while not over.wait(0.1):
            for url in urls:
                try:
                    codes.append(
                        httpx.post(f"{url}/v1/classify", json=MAIL, timeout=10).status_code
                    )
                except httpx.HTTPError:
                    codes.append(0)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until("answers", lambda: codes.count(200) > 20, seconds=60)
        begun = time.monotonic()
        podman("kill", "--signal", "KILL", cluster.head)
        time.sleep(5)
        cluster.add_head()
        cluster.wait_for_nodes(1 + len(cluster.workers))
        until("the application, known again", running, seconds=180)
        back = time.monotonic() - begun
        seen = len(codes)
        until("more answers", lambda: len(codes) > seen + 20, seconds=60)
    finally:
        over.set()
        asking.join()
    assert set(codes) == {200}
    record_property("found", f"{len(codes)} answers, all 200; the head was back after {back:.0f} s")
