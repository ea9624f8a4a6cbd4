"""Traces reach a collector with their real times, follow the caller's, and harm nobody."""

import asyncio
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from serving.account import Account
from serving.config import ServeConfig
from serving.tracing import Tracing, require
from tests.conftest import unused_port
from tests.serving.collector import Collector, collecting, told
from tests.serving.twin import MAIL, RFC822, Twin, app_of, client_of
from training.schema import ConfigError

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def traced(
    url: str, requests: Sequence[tuple[str, str, dict[str, Any]]], share: float = 1.0
) -> list[httpx.Response]:
    """The answers of a server that is traced, once it has shut down."""
    tracing = Tracing(url, share=share, replica="a")

    async def scenario() -> list[httpx.Response]:
        async with client_of(app_of(Twin(), observers=[tracing.request])) as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    answers = asyncio.run(scenario())
    tracing.close()
    return answers


def test_a_request_is_a_span_with_the_stages_of_its_mail(collector: Collector) -> None:
    before = time.time_ns()
    headers = RFC822 | {"X-Request-ID": "r-1"}
    traced(collector.url, [("POST", "/v1/classify/raw?q=1", {"content": MAIL, "headers": headers})])
    assert collector.paths == ["/v1/traces"]
    [resource] = collector.resources
    assert (resource["service.name"], resource["service.instance.id"]) == ("mailray", "a")
    whole = collector.named("POST /v1/classify/raw")
    assert told(whole) == {
        "http.request.method": "POST",
        "http.route": "/v1/classify/raw",
        "http.response.status_code": 200,
        "http.request.body.size": len(MAIL),
        "mailray.request_id": "r-1",
        "mailray.mails": 1,
        "mailray.model": "twin",
        "mailray.version": "3",
    }
    assert whole.kind == 2  # SERVER
    assert before <= whole.start_time_unix_nano < whole.end_time_unix_nano <= time.time_ns()
    parse, *stages = (collector.named(name) for name in ("parse", "tokenize", "queue", "forward"))
    assert len(collector.spans) == 5
    for stage in (parse, *stages):
        assert (stage.trace_id, stage.parent_span_id) == (whole.trace_id, whole.span_id)
    # As the twin says, one after the other: 1, 2 and 3 ms.
    took = [stage.end_time_unix_nano - stage.start_time_unix_nano for stage in stages]
    assert took == pytest.approx([1e6, 2e6, 3e6], abs=1e4)
    for one, next_ in pairwise(stages):
        assert one.end_time_unix_nano == pytest.approx(next_.start_time_unix_nano, abs=1e4)
    assert whole.start_time_unix_nano <= parse.start_time_unix_nano
    assert parse.end_time_unix_nano <= stages[0].start_time_unix_nano


def test_the_callers_trace_goes_on_and_decides(collector: Collector) -> None:
    post = {"json": {"body": "Hi"}}
    sampled = post | {"headers": {"traceparent": PARENT}}
    not_sampled = post | {"headers": {"traceparent": PARENT[:-1] + "0"}}
    requests = [("POST", "/v1/classify", each) for each in (sampled, not_sampled, post)]
    traced(collector.url, requests, share=0.0)
    whole = collector.named("POST /v1/classify")
    assert whole.trace_id.hex() == PARENT.split("-")[1]
    assert whole.parent_span_id.hex() == PARENT.split("-")[2]


def test_faults_and_paths_that_are_none_are_told_without_the_path(collector: Collector) -> None:
    twin_fails = ("POST", "/v1/explain", {"json": {"body": "Hi"}})
    traced(collector.url, [("GET", "/quokka7319", {}), twin_fails])
    assert told(collector.named("GET"))["error.type"] == "not_found"
    assert collector.named("GET").status.code == 0
    refused = collector.named("POST /v1/explain")
    assert told(refused)["error.type"] == "not_explainable"
    assert refused.status.code == 2  # ERROR
    assert not any(b"quokka7319" in body for body in collector.bodies)


def test_a_request_of_many_mails_has_the_stages_of_the_first(collector: Collector) -> None:
    tracing = Tracing(collector.url, share=1.0, replica="a")

    async def scenario() -> None:
        async with client_of(app_of(observers=[tracing.request], max_mails=64)) as client:
            mails = [{"body": "Hi"}] * 20
            answer = await client.post("/v1/classify", json={"mails": mails})
            assert len(answer.json()["answers"]) == 20

    asyncio.run(scenario())
    tracing.close()
    forwards = [span for span in collector.spans if span.name == "forward"]
    assert [told(span)["mailray.mail"] for span in forwards] == list(range(8))
    assert told(collector.named("POST /v1/classify"))["mailray.mails"] == 20


def test_a_collector_that_is_down_costs_one_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "serving")
    tracing = Tracing(f"http://127.0.0.1:{unused_port()}", share=1.0, replica="a")
    for _ in range(3):
        tracing.request(Account(route="/v1/classify", method="POST", status=200))
    begun = time.monotonic()
    tracing.close()
    assert time.monotonic() - begun < 10  # 1.5 s, and what the machine has to do beside
    for thread_end in range(100):
        if caplog.records or thread_end == 99:
            break
        time.sleep(0.05)
    assert [record.getMessage().split(" http")[0] for record in caplog.records] == [
        "traces do not reach"
    ]
    assert capsys.readouterr().err == ""


def test_without_the_packages_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(ConfigError, match=r"tracing: needs .*pip install 'mailray\[otel\]'"):
        require()


@pytest.mark.parametrize(
    "url", ["collector:4318", "grpc://a:4317", "http://", "http://u:p@a", "http://a:x"]
)
def test_what_is_no_collectors_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="a collector's URL, http://HOST:4318"):
        ServeConfig(model="m", tracing=url)
