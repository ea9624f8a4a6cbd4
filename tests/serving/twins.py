"""An engine without weights, and an API over it, for the tests of who may call and what is kept."""

from pathlib import Path
from typing import Any

import httpx

from serving.access import Access
from serving.api import build_api
from serving.classifier import ModelInfo, Verdict
from serving.engine import Scored, Timings
from serving.feedback.keeper import Keeper
from serving.tokens import Token, edited

MAIL = b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n"
JSON = {"Content-Type": "application/json"}
RFC822 = {"Content-Type": "message/rfc822"}


class Twin:
    """Says ham, or fails as it is told."""

    model = ModelInfo("twin", "3", ("ham", "spam"), False, 1, (), 64, "fp32")

    def __init__(self) -> None:
        self.ready = True
        self.fault: Exception | None = None

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        if self.fault:
            raise self.fault
        verdict = Verdict("ham", ("ham",), 0.75, {"ham": 0.75, "spam": 0.25}, "twin", "3")
        return Scored(verdict, Timings(1.0, 2.0, 3.0))


def app_of(
    twin: Twin | None = None,
    access: Access | None = None,
    keeper: Keeper | None = None,
    **settings: Any,
) -> Any:
    given = {"max_in_flight": 8, "max_body_bytes": 200_000} | settings
    return build_api(twin or Twin(), access=access, keeper=keeper, **given)


def client_of(app: Any, client: tuple[str, int] = ("127.0.0.1", 1), **more: Any) -> Any:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=client)
    return httpx.AsyncClient(transport=transport, base_url="http://mailray", **more)


def token_in(file: Path, name: str = "gateway", **settings: Any) -> dict[str, str]:
    """A new token in a file; the header that shows it."""
    token, secret = Token.create(name, **settings)
    with edited(file) as tokens:
        tokens.append(token)
    return {"Authorization": f"Bearer {secret}"}
