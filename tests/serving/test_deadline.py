"""How long a request may take: the server's limit, and less where X-Request-Timeout-Ms says so."""

import asyncio
import time

import httpx
import pytest

from serving.api import build_api
from serving.classifier import ModelInfo
from serving.engine import Scored
from serving.errors import ApiError


class Late:
    """Keeps the time that each request had left, and refuses as the engine does at its deadline."""

    model = ModelInfo("late", "1", ("ham", "spam"), False, 1, (), 64, "fp32")
    ready = True

    def __init__(self) -> None:
        self.left: list[float] = []

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        assert deadline is not None
        self.left.append(deadline - time.monotonic())
        raise ApiError("deadline_exceeded", "no verdict within 5 ms", {"Retry-After": "7"})


def post(late: Late, given: str | None) -> httpx.Response:
    """The answer to a mail whose request asks for so many milliseconds."""

    async def scenario() -> httpx.Response:
        app = build_api(late, max_in_flight=1, max_body_bytes=1_000, timeout_ms=10_000)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mailray") as client:
            headers = {} if given is None else {"X-Request-Timeout-Ms": given}
            return await client.post("/v1/classify", json={"body": "Hi"}, headers=headers)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 10), ("10000", 10), ("5500.5", 5.5), ("99999", 10)]
)
def test_the_engine_gets_the_shorter_of_the_two_limits(given: str | None, seconds: float) -> None:
    late = Late()
    answer = post(late, given)
    assert seconds - 2 < late.left[0] <= seconds + 0.001
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("given", ["", "soon", "0", "-5", "nan", "inf", "\u00e9" * 200])
def test_another_value_is_400_and_names_the_header(given: str) -> None:
    late = Late()

    async def scenario() -> httpx.Response:
        app = build_api(late, max_in_flight=1, max_body_bytes=1_000)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mailray") as client:
            headers = {b"X-Request-Timeout-Ms": given.encode("latin-1")}
            return await client.post("/v1/classify", json={"body": "Hi"}, headers=headers)

    answer = asyncio.run(scenario())
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_header"
    assert answer.json()["error"]["message"].startswith("X-Request-Timeout-Ms: milliseconds")
    assert late.left == []
