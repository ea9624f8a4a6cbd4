"""The twin behind tokens and with feedback, for the tests of who may call and what is kept."""

from pathlib import Path
from typing import Any

import httpx

from serving.access import Access
from serving.api import build_api
from serving.feedback.keeper import Keeper
from serving.tokens import Token, edited
from tests.serving.twin import JSON, MAIL, RFC822, Twin

__all__ = ["JSON", "MAIL", "RFC822", "Twin", "app_of", "client_of", "token_in"]


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
