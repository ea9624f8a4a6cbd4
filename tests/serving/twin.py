"""A twin of the engine that has no weights, and clients of an API over it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from serving.api import build_api
from serving.classifier import ModelInfo, Verdict
from serving.engine import Scored, Timings
from serving.tokens import Token, edited

Send = Callable[..., httpx.Response]
"""Method, path, and what httpx takes; sends that to an API over the test's twin."""

LIMIT = 200_000
"""Bytes of a body."""
MOST = 5
"""Mails of a request."""
JSON = {"Content-Type": "application/json"}
RFC822 = {"Content-Type": "message/rfc822"}
MAIL = b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n"
TEXT = "subject: Lunch\nfrom: Ann <ann@example.org>\n\nAt noon?"


class Twin:
    """Says ham, and keeps the texts it was given."""

    model = ModelInfo("twin", "3", ("ham", "spam"), False, 1, (), 64, "fp32")

    def __init__(self) -> None:
        self.ready = True
        self.fault: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.texts: list[str] = []
        self.given_up = 0

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        self.texts.append(text)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.fault:
            raise self.fault
        verdict = Verdict(
            "ham", ("ham",), 0.75, {"ham": 0.75, "spam": 0.25}, "twin", "3", "balanced", 0.5
        )
        return Scored(verdict, Timings(1, 2, 3))


def app_of(engine: Any = None, **settings: Any) -> Any:
    """The API over it, or over another engine."""
    given = {"max_in_flight": 8, "max_body_bytes": LIMIT, "max_mails": MOST} | settings
    return build_api(engine or Twin(), **given)


def client_of(
    app: Any, client: tuple[str, int] = ("127.0.0.1", 1), **more: Any
) -> httpx.AsyncClient:
    """A client of that at an address, without a network."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=client)
    return httpx.AsyncClient(transport=transport, base_url="http://mailray", **more)


def token_in(file: Path, name: str = "gateway", **settings: Any) -> dict[str, str]:
    """A new token in a file; the header that shows it."""
    token, secret = Token.create(name, **settings)
    with edited(file) as tokens:
        tokens.append(token)
    return {"Authorization": f"Bearer {secret}"}


def sent(twin: Twin, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer to one request."""

    async def scenario() -> httpx.Response:
        async with client_of(app_of(twin)) as client:
            return await client.request(method, path, **request)

    return asyncio.run(scenario())


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an answer that must have the one shape of errors."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]["code"], body["error"]["message"]
