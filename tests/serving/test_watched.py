"""A server of two replicas is watched as one: metrics, log and traces of both."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import httpx
import pytest
import ray

from serving.config import ServeConfig
from serving.deployment import start, stop
from tests.conftest import unused_port
from tests.serving.collector import Collector, collecting
from tests.serving.references import made
from tests.serving.test_metrics import Read
from training.bundle import Bundle

REQUESTS = 40
MAIL = b"Subject: quokka7319\n\nAt noon, quokka7319?\n"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def url(bundle: Bundle, collector: Collector, tmp_path: Path, ray_session: None) -> Iterator[str]:
    place = tmp_path / "bundle"
    copytree(bundle.path, place)
    replace(bundle, path=place, reference=made()).write_facts(place)
    config = ServeConfig(
        model=str(place),
        port=unused_port(),
        precision="fp32",
        replicas=2,
        feedback="none",
        log=str(tmp_path / "logs"),
        tracing=collector.url,
    )
    yield start(config)
    stop()


def replicas(url: str) -> set[str]:
    """Those whose series stand in a scrape."""
    read = Read(httpx.get(f"{url}/metrics", timeout=30).text)
    return {dict(labels)["replica"] for name, labels in read.samples if name == "mailray_ready"}


def test_two_replicas_are_watched_as_one(url: str, collector: Collector, tmp_path: Path) -> None:
    headers = {"Content-Type": "message/rfc822"}
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(REQUESTS):
            client.headers["X-Request-ID"] = f"r-{number}"
            assert client.post("/v1/classify/raw", content=MAIL, headers=headers).status_code == 200
        deadline = time.monotonic() + 60
        while True:  # the last is counted when its answer has been sent
            read = Read(client.get("/metrics").text)
            if read.total("requests_total", route="/v1/classify/raw") == REQUESTS:
                break
            assert time.monotonic() < deadline
    both = replicas(url)
    assert len(both) == 2
    served = {name: read.total("mails_total", replica=name) for name in both}
    assert sum(served.values()) == REQUESTS
    assert all(served.values())
    assert read.total("stage_seconds_count", stage="forward") == REQUESTS
    assert read.total("batch_mails_sum") == REQUESTS
    drift = httpx.get(f"{url}/v1/drift", timeout=30).json()
    assert (drift["mails"], drift["replicas"]) == (REQUESTS, 2)

    stop()  # what waits is written and sent
    files = sorted((tmp_path / "logs").glob("serve-*.jsonl"))
    assert {file.stem for file in files} == {f"serve-{name}" for name in both}
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    ids = [line["request_id"] for line in lines if line.get("route") == "/v1/classify/raw"]
    assert sorted(ids) == sorted(f"r-{number}" for number in range(REQUESTS))
    spans = [span for span in collector.spans if span.name == "POST /v1/classify/raw"]
    assert len(spans) == REQUESTS
    assert {each["service.instance.id"] for each in collector.resources} == both
    told = [file.read_bytes() for file in files] + collector.bodies
    assert not any(b"quokka7319" in each for each in told)


def test_a_replica_that_is_killed_is_told_of_no_more(url: str) -> None:
    before = replicas(url)
    assert len(before) == 2
    victim = min(before)
    ray.kill(ray.get_actor(f"SERVE_REPLICA::mailray#Replica#{victim}", namespace="serve"))
    deadline = time.monotonic() + 90
    while len(after := replicas(url)) != 2 or after == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert before - after == {victim}
