"""What all routes work with: the engine, its limits, and the way from a request to a mail text."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request

from serving import payload
from serving.engine import Engine
from serving.errors import ApiError
from training.mail import MailTextOptions, text_options

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
    body_timeout_s: float = 30.0
    options: MailTextOptions = field(init=False)
    """What the model reads of a mail."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", text_options(self.engine.model.extras))

    def require_ready(self) -> None:
        """Refuse while the model is not there."""
        if not self.engine.ready:
            raise ApiError("not_ready", "the model is not ready")

    async def text(self, request: Request, media: str) -> str:
        """The mail text of a request whose body is of type `media`."""
        body = await payload.read(request, self.max_body_bytes, self.body_timeout_s)
        if len(body) > _ASIDE_BYTES:
            text = await asyncio.to_thread(payload.text, media, body, self.options)
        else:
            text = payload.text(media, body, self.options)
        self.require_ready()  # it may have closed while the body came in
        return text


def request_id(request: Request) -> str:
    """The request's X-Request-ID, or one made up."""
    given = request.headers.get("x-request-id", "")[:_MAX_ID_CHARS]
    return given or uuid.uuid4().hex
