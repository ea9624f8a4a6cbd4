"""What all routes work with: the engine, its limits, and the way from a request to a mail text."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from serving import payload
from serving.engine import Assigning, Engine
from serving.errors import ApiError
from training.mail import text_options

_ASIDE_BYTES: Final = 64 * 1024
"""Bodies above this are parsed in a thread; for the others the hop costs more than it saves."""

_MAX_ID_CHARS: Final = 128


class Permits:
    """How many requests are worked on at once; each takes one before its body is read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A permit for as long as the block runs."""
        if self._taken >= self._limit:
            raise ApiError("overloaded", f"{self._limit} requests are being worked on; try again")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass(frozen=True)
class Service:
    """One server's engine and limits."""

    engine: Engine
    permits: Permits
    max_body_bytes: int
    timeout_ms: float = 30_000.0
    """Of a request that does not ask for less."""

    def assigned(self, request_id: str) -> Engine:
        """The engine for one request, which keeps it when another model takes over meanwhile."""
        engine = self.engine
        return engine.assigned(request_id) if isinstance(engine, Assigning) else engine

    def require_ready(self) -> None:
        """Refuse while the model is not there."""
        if not self.engine.ready:
            raise ApiError("not_ready", "the model is not ready")

    def deadline(self, request: Request) -> float:
        """Until when a verdict is of use, a time of `time.monotonic()`; to be asked for first.

        Raises:
            ApiError: X-Request-Timeout-Ms is no such number.
        """
        given = request.headers.get("x-request-timeout-ms")
        asked = self.timeout_ms
        if given is not None:
            try:
                asked = float(given)
            except ValueError:
                asked = -1.0
            if not 0 < asked < float("inf"):
                raise ApiError(
                    "invalid_header",
                    f"X-Request-Timeout-Ms: milliseconds, more than 0, got {given[:80]!a}",
                )
        return time.monotonic() + min(asked, self.timeout_ms) / 1000

    async def text(self, request: Request, media: str, engine: Engine) -> str:
        """The mail text, as `engine` reads it, of a request whose body is of type `media`."""
        options = text_options(engine.model.extras)
        body = await payload.read(request, self.max_body_bytes)
        if len(body) > _ASIDE_BYTES:
            text = await asyncio.to_thread(payload.text, media, body, options)
        else:
            text = payload.text(media, body, options)
        self.require_ready()  # it may have closed while the body came in
        return text


def request_id(request: Request) -> str:
    """The request's X-Request-ID, or one made up."""
    given = request.headers.get("x-request-id", "")[:_MAX_ID_CHARS]
    return given or uuid.uuid4().hex
