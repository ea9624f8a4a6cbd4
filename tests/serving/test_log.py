"""The log: one JSON line a request, what went wrong beside it, and never a mail."""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import log as log_module
from serving.access import Access
from serving.account import Account
from serving.log import Log
from serving.metrics import Metrics
from serving.tracing import Tracing
from tests.serving.collector import collecting
from tests.serving.server import FaultyTwin
from tests.serving.test_silence import BODIES, FEEDBACK, MARK
from tests.serving.twin import MAIL, RFC822, Twin, app_of, client_of, token_in
from training.schema import ConfigError

REQUEST = {
    "time", "level", "event", "replica", "request_id", "method", "route", "status", "ms", "bytes"
}  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    found = Log(tmp_path / "logs", "a")
    yield found
    found.close()


def lines(log: Log) -> list[dict[str, Any]]:
    """All that was written, once nothing waits."""
    log.close()
    return [json.loads(line) for line in log.file.read_text("ascii").splitlines()]


def asked(log: Log, *requests: tuple[str, str, dict[str, Any]], **settings: Any) -> None:
    async def scenario() -> None:
        async with client_of(app_of(observers=[log.request], **settings)) as client:
            for method, path, more in requests:
                await client.request(method, path, **more)

    asyncio.run(scenario())


def test_each_request_is_a_line(log: Log, tmp_path: Path) -> None:
    shown = token_in(tmp_path / "tokens.yaml")
    headers = RFC822 | shown | {"X-Request-ID": "r-1"}
    raw = ("POST", "/v1/classify/raw", {"content": MAIL, "headers": headers})
    many = {"mails": [{"body": "Hi"}, {"raw": ""}, {"body": "Ho"}]}
    two = ("POST", "/v1/classify?a=quokka", {"json": many, "headers": shown})
    lost = ("GET", "/quokka", {"headers": shown})
    stranger: tuple[str, str, dict[str, Any]] = ("GET", "/v1/models/quokka/card", {})
    asked(log, raw, two, lost, stranger, access=Access(tmp_path / "tokens.yaml"))
    first, second, third, fourth = lines(log)
    assert set(first) == REQUEST | {"caller", "mails", "labels", "model", "version"}
    same = {"request_id": "r-1", "method": "POST", "route": "/v1/classify/raw", "status": 200,
            "bytes": len(MAIL), "caller": "gateway", "mails": 1, "labels": {"ham": 1},
            "model": "twin", "version": "3", "replica": "a", "level": "info",
            "event": "request"}  # fmt: skip
    assert same.items() <= first.items()
    assert (second["mails"], second["mails_refused"], second["labels"]) == (2, 1, {"ham": 2})
    assert (third["route"], third["status"], third["code"]) == ("unmatched", 404, "not_found")
    assert (fourth["route"], fourth["code"]) == ("/v1/models/{name}/card", "unauthorized")
    assert "caller" not in fourth
    assert "quokka" not in log.file.read_text()


def test_what_the_server_says_of_a_request_has_its_id(log: Log) -> None:
    class Broken(Twin):
        async def classify(self, text: str, **_: Any) -> Any:
            raise RuntimeError(f"cannot read {text}")

    headers = {"X-Request-ID": "r-2"}
    asked(
        log, ("POST", "/v1/classify", {"json": {"body": MARK}, "headers": headers}), engine=Broken()
    )
    fault, request = lines(log)
    assert (fault["event"], fault["logger"], fault["level"]) == (
        "message",
        "serving.errors",
        "error",
    )
    assert fault["message"].startswith("a request failed: RuntimeError at ")
    assert fault["request_id"] == request["request_id"] == "r-2"
    assert (request["status"], request["level"], request["code"]) == (500, "warning", "internal")


def test_an_exception_that_is_logged_tells_its_place_and_not_what_it_says(log: Log) -> None:
    try:
        raise ValueError(MARK)
    except ValueError:
        logging.getLogger("serving.watch").exception("m@champion could not be followed")
    [line] = lines(log)
    assert line["error"].startswith("ValueError at test_log.py:")
    assert MARK not in log.file.read_text()


def test_a_file_is_turned_over_and_old_ones_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_BYTES", 2_000)
    old, other = tmp_path / "serve-old.jsonl.1", tmp_path / "quickstart.log"
    for file in (old, other):
        file.touch()
        os.utime(file, (time.time() - 15 * 86_400,) * 2)
    log = Log(tmp_path, "b")
    for number in range(100):
        log.request(Account(request_id=str(number), status=200))
    assert lines(log)[-1]["request_id"] == "99"
    files = sorted(file.name for file in tmp_path.glob("serve-*"))
    assert files == ["serve-b.jsonl", *(f"serve-b.jsonl.{number}" for number in range(1, 5))]
    assert all(file.stat().st_size <= 2_000 for file in tmp_path.glob("serve-*"))
    assert other.exists()


def test_a_file_that_is_removed_is_begun_anew(log: Log) -> None:
    log.request(Account(request_id="first", status=200))
    while not log.file.read_text():
        time.sleep(0.01)
    log.file.unlink()
    log.request(Account(request_id="second", status=200))
    assert [line["request_id"] for line in lines(log)] == ["second"]


def test_what_cannot_be_told_yet_is_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_WAITING", 2)
    log = Log(tmp_path, "d")
    go = threading.Event()
    write = log._out.emit
    monkeypatch.setattr(log._out, "emit", lambda record: (go.wait(60), write(record)))
    log.request(Account(request_id="held", status=200))
    while log._lines.queue.qsize():
        time.sleep(0.01)
    for _ in range(2):
        for number in range(50):
            log.request(Account(request_id=str(number), status=200))
        log._lines.queue.get_nowait()  # room for one line, and none at once
    go.set()
    while log._lines.queue.qsize():
        time.sleep(0.01)
    log.request(Account(request_id="last", status=200))
    said = lines(log)
    lost = sum(int(line["message"].split()[0]) for line in said if line["event"] == "message")
    requests = sum(line["event"] == "request" for line in said)
    assert (requests, lost) == (2, 98)


def test_a_disk_that_is_slow_or_full_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_module, "_WAITING", 10)
    log = Log(tmp_path, "c")
    write, full = log._out.emit, iter([True] * 2)

    def emit(record: logging.LogRecord) -> None:
        if next(full, False):
            try:
                raise OSError(28, "No space left on device")
            except OSError:
                log._out.handleError(record)
        elif log._lines.queue.qsize() > 3:
            time.sleep(0.01)
        write(record)

    monkeypatch.setattr(log._out, "emit", emit)
    for number in range(200):
        log.request(Account(request_id=str(number), status=200))
    while log._lines.queue.qsize():
        time.sleep(0.01)
    log.request(Account(request_id="last", status=200))
    said = lines(log)
    requests = [line for line in said if line["event"] == "request"]
    dropped = [line for line in said if line["event"] == "message"]
    lost = sum(int(line["message"].split()[0]) for line in dropped)
    assert lost > 0
    assert len(requests) + lost == 201
    assert capsys.readouterr().err.count("cannot be written: OSError") == 1


def test_a_directory_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"log: .*file/logs cannot be written \(Not a dir.*log=none"
    ):
        Log(tmp_path / "file/logs", "a")


Post = Callable[[str, str, bytes], httpx.Response]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Post, Callable[[], str]]]:
    """A server with all that watches it, whose engine fails with the mail in its exceptions."""
    with collecting() as collector:
        log, metrics = Log(tmp_path / "logs", "a"), Metrics()
        tracing = Tracing(collector.url, share=1.0, replica="a")
        app = app_of(FaultyTwin(), metrics=metrics, observers=[tracing.request, log.request])

        def post(path: str, media: str, body: bytes) -> httpx.Response:
            async def scenario() -> Any:
                async with client_of(app) as client:
                    headers = {"Content-Type": media, f"X-{MARK}": MARK, "User-Agent": MARK}
                    return await client.post(f"{path}?{MARK}={MARK}", content=body, headers=headers)

            answer: httpx.Response = asyncio.run(scenario())
            return answer

        def said() -> str:
            tracing._provider.force_flush()
            log._lines.queue.join()
            sent = b"".join(collector.bodies).decode("latin-1")
            return "\n".join([log.file.read_text(), metrics.text(), sent])

        yield post, said
        tracing.close()
        log.close()


def test_no_mail_is_in_log_metrics_or_traces(watched: tuple[Post, Callable[[], str]]) -> None:
    post, said = watched
    paths = ("/v1/classify", "/v1/classify/raw", "/v1/explain", "/v2/models/twin/infer", f"/{MARK}")
    for path in paths:
        for media, _, body in BODIES:
            post(path, media, body)
    for each in FEEDBACK:
        post("/v1/feedback", "application/json", json.dumps(each).encode())
    told = said()
    assert "a request failed: RuntimeError at " in told
    assert 'mailray_refusals_total{code="internal",replica="local"}' in told
    assert "POST /v1/classify/raw" in told
    assert MARK not in told


PLACES = (
    "Subject: %s\n\nHi",
    "From: %s <%s@a.example>\n\nHi",
    "%s: a\n\nHi",
    "A: b\n\n%s",
    "Content-Type: multipart/mixed; boundary=%s\n\n--%s\n\n--%s--",
    'Content-Disposition: attachment; filename="%s"\n\nHi',
    '{"body": "%s"}',
    '{"%s": 1}',
    '{"body": "%s',
    "%s",
)
TYPES = ("application/json", "message/rfc822", "application/octet-stream")
PATHS = ("/v1/classify", "/v1/classify/raw", "/v1/explain", f"/v1/{MARK}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.sampled_from(PLACES),
    around=st.text(max_size=20),
    media=st.sampled_from(TYPES),
    path=st.sampled_from(PATHS),
)
def test_no_mail_is_told_whatever_is_sent(
    watched: tuple[Post, Callable[[], str]], where: str, around: str, media: str, path: str
) -> None:
    post, said = watched
    body = where.replace("%s", f"{around}{MARK}{around}").encode("utf-8", "replace")
    post(path, media, body)
    assert MARK not in said()
