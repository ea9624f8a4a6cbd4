"""What all routes work with: the engine, its limits, and the way from a request to a mail text."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request

from serving import payload
from serving.engine import Engine
from serving.errors import ApiError
from training.mail import Mail, MailTextOptions, text_options

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
    options: MailTextOptions = field(init=False)
    """What the model reads of a mail."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", text_options(self.engine.model.extras))

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

    async def text(self, request: Request, media: str) -> str:
        """The mail text of a request whose body is of type `media`."""
        body = await payload.read(request, self.max_body_bytes)
        if len(body) > _ASIDE_BYTES:
            text = await asyncio.to_thread(payload.text, media, body, self.options)
        else:
            text = payload.text(media, body, self.options)
        self.require_ready()  # it may have closed while the body came in
        return text

    async def original(self, request: Request, media: str) -> tuple[str, Mail | None]:
        """As `text`, and the mail if its fields were sent, not the message itself."""
        content = await payload.read(request, self.max_body_bytes)
        found = await asyncio.to_thread(payload.original, media, content, self.options)
        self.require_ready()
        return found


def request_id(request: Request) -> str:
    """The request's X-Request-ID, or one made up."""
    given = request.headers.get("x-request-id", "")[:_MAX_ID_CHARS]
    return given or uuid.uuid4().hex
