"""Whatever is sent: an answer in its shape, none of them a 500, and none late.

More of it:  MAILRAY_FUZZ=50000 pytest tests/serving/test_fuzz.py
Against a server:  python -m tests.bench.fuzz --url http://127.0.0.1:8000
"""

import asyncio
import json
import os
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.serving.fuzzing import Fuzzer, Request
from tests.serving.twin import Twin, app_of

COUNT = int(os.environ.get("MAILRAY_FUZZ", "2000"))
PARTS = 4
STATUSES = {200, 400, 404, 405, 413, 415, 422}


async def asked(app: Any, request: Request) -> tuple[int | None, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer; no status where there was none."""
    path, _, query = request.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": request.headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    pieces = iter(request.pieces)
    left = len(request.pieces)
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal left
        piece = next(pieces, None)
        if piece is None:
            return {"type": "http.disconnect"}
        left -= 1
        more = left > 0 or not request.complete
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Any) -> None:
        told.append(message)

    async with asyncio.timeout(60):
        await app(scope, receive, send)
    start = next((each for each in told if each["type"] == "http.response.start"), None)
    body = b"".join(each.get("body", b"") for each in told)
    return (start["status"], list(start["headers"]), body) if start else (None, [], body)


def judge(request: Request, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """An answer is in its shape."""
    assert status in STATUSES
    assert len([name for name, _ in headers if name.lower() == b"x-request-id"]) == 1
    if status >= 400:
        error = json.loads(body)["error"]
        text = error if request.path.startswith("/v2") else error["message"]
        assert isinstance(text, str)
        assert text.isascii()
        assert len(text) < 2000
        assert "\n" not in text


@pytest.mark.parametrize("seed", range(PARTS))
def test_no_request_makes_the_server_fail(seed: int) -> None:
    fuzzer = Fuzzer(seed)
    statuses: set[int] = set()

    async def scenario() -> None:
        app = app_of(Twin(), max_mails=64)
        for _ in range(COUNT // PARTS):
            request = fuzzer.request()
            try:
                status, headers, body = await asked(app, request)
                if status is not None or request.complete:
                    assert status is not None
                    judge(request, status, headers, body)
                    statuses.add(status)
            except BaseException:
                print(request)  # noqa: T201  # the case that failed
                raise

    asyncio.run(scenario())
    assert statuses >= {200, 400, 404, 415, 422}


def test_a_seed_gives_the_same_requests() -> None:
    first, second = Fuzzer(7), Fuzzer(7)
    assert [first.request() for _ in range(50)] == [second.request() for _ in range(50)]
