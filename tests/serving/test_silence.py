"""No mail content in logs, errors and answers, whatever is sent and whatever fails.

Marked mails go through every route of a real server process, also such as make the engine fail
with the mail in its exception; then all that it wrote, and all that it answered, is searched.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api import build_api
from serving.errors import described
from tests.conftest import unused_port
from tests.serving.server import FaultyTwin, running
from tests.serving.twin import token_in

MARK = "quokka7319"
BODIES: list[tuple[str, str, bytes]] = [
    ("application/json", "fine", json.dumps({"subject": MARK, "body": MARK}).encode()),
    ("application/json", "whole", json.dumps({"raw": f"Subject: {MARK}\n\n{MARK}"}).encode()),
    ("application/json", "fails", json.dumps({"body": f"fail {MARK}"}).encode()),
    ("application/json", "cut off", f'{{"body": "{MARK}'.encode()),
    ("application/json", "not UTF-8", f'{{"body": "{MARK}'.encode() + b'\xff"}'),
    ("application/json", "no control", f'{{"body": "{MARK}\n"}}'.encode()),
    ("application/json", "wrong type", json.dumps({"body": {"a": MARK}}).encode()),
    ("application/json", "wrong types", json.dumps({"body": [MARK], "raw": MARK}).encode()),
    ("application/json", "a list", json.dumps([MARK]).encode()),
    ("application/json", "a name", json.dumps({"body": MARK, "mails": [{"body": MARK}]}).encode()),
    ("application/json", "inputs", json.dumps({"inputs": [{"data": [MARK, "fail"]}]}).encode()),
    ("message/rfc822", "a mail", f"Subject: {MARK}\n\n{MARK}".encode()),
    ("message/rfc822", "fails", f"Subject: fail {MARK}\n\n{MARK}".encode()),
    ("message/rfc822", "broken", f"Subject: =?x?b?{MARK}?=\nContent-Type: {MARK}\n\n".encode()),
    ("message/rfc822", "no mail", b"\x00\x01" + MARK.encode()),
    ("application/octet-stream", "fails", f"Subject: fail\n\n{MARK}".encode()),
    ("text/plain", "another type", MARK.encode()),
    ("application/json", "too large", json.dumps({"body": MARK * 40_000}).encode()),
]
FEEDBACK: list[Any] = [
    {"mail": {"body": MARK}, "consent": {"store_text": True}},
    {"mail": {"body": MARK}},
    {"mail": {"raw": MARK, "body": MARK}},
    {"mail": MARK},
    {"mail": {"body": MARK}, "label": MARK},
    {"mail": {"body": MARK}, "verdict": {"label": MARK, "probability": MARK}},
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def server(tmp_path: Path, log: Path) -> Iterator[httpx.Client]:
    shown = token_in(tmp_path / "tokens.yaml")
    port, store = unused_port(), f"sqlite:///{tmp_path / 'feedback.db'}"
    tokens = str(tmp_path / "tokens.yaml")
    with (
        running(log, port=port, feedback=store, tokens=tokens, body_timeout_s=1.0),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=shown) as client,
    ):
        yield client


def posts(client: httpx.Client) -> list[str]:
    document = client.get("/openapi.json").json()
    return [path for path, methods in document["paths"].items() if "post" in methods]


@pytest.mark.slow
def test_no_mail_is_in_what_a_server_logs_or_answers(server: httpx.Client, log: Path) -> None:
    answers: list[httpx.Response] = []
    for path in posts(server):
        for media, _, body in BODIES:
            headers = {"Content-Type": media}
            answers.append(server.post(path, content=body, headers=headers))
            without = {**headers, "Authorization": "Bearer wrong"}
            answers.append(server.post(path, content=body, headers=without))
    for number, said in enumerate(FEEDBACK):
        for _ in range(2):
            request = {"request_id": f"r-{number}", "label": "spam"}
            answers.append(server.post("/v1/feedback", json=request | said))
    # One who goes away amid a forward that fails then, and one whose body does not come.
    with pytest.raises(httpx.ReadTimeout):
        server.post("/v1/classify", json={"body": f"linger {MARK}"}, timeout=0.1)

    def slow() -> Iterator[bytes]:
        import time

        yield MARK.encode()
        time.sleep(1.5)
        yield MARK.encode()

    headers = {"Content-Type": "message/rfc822"}
    answers.append(server.post("/v1/classify/raw", content=slow(), headers=headers))
    assert answers[-1].status_code == 408
    assert {200, 201, 400, 401, 413, 415, 422, 500} <= {each.status_code for each in answers}
    for each in answers:
        assert MARK not in each.text, each.text
        assert MARK not in str(each.headers)
    server.get("/healthz")
    said = log.read_text("utf-8", "replace")
    assert "a request failed: RuntimeError at " in said
    assert "server.py" in said
    assert MARK not in said


def test_a_fault_is_told_by_type_and_place() -> None:
    try:
        try:
            raise KeyError(MARK)
        except KeyError as error:
            raise ValueError(MARK) from error
    except ValueError as error:
        said = described(error)
    assert said.startswith("ValueError at test_silence.py:")
    assert ", after KeyError at test_silence.py:" in said
    assert MARK not in said


def test_a_fault_does_not_pass_the_application_by() -> None:
    """Ray Serve, uvicorn and asyncio log what does, with its message."""

    async def scenario() -> int:
        app = build_api(FaultyTwin(), max_in_flight=2, max_body_bytes=1000)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://mailray") as client:
            return int((await client.post("/v1/classify", json={"body": "fail"})).status_code)

    assert asyncio.run(scenario()) == 500
