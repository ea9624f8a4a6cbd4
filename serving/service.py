"""What all routes work with: the engine, its limits, and the way from a request to a mail text."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

from fastapi import Request

from serving import payload
from serving.account import MailAccount, account
from serving.engine import Assigning, Engine, Scored
from serving.errors import ApiError
from serving.mails import Parsed
from training.mail import MailTextOptions, text_options

_ASIDE_BYTES: Final = 64 * 1024
"""Bodies above this are parsed in a thread; for the others the hop costs more than it saves."""

_More = ParamSpec("_More")
_Result = TypeVar("_Result")


class Permits:
    """How many requests are worked on at once; each takes one before its body is read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many requests are worked on."""
        return self._taken

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


class Room:
    """How many bytes of bodies are held at once, however many requests are worked on.

    One that would have none is refused; a body that is there alone always has room.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Room for one body while the block runs; what is yielded takes bytes as they come."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            others = self._held - held
            if others and self._held + size > self._limit:
                raise ApiError("overloaded", f"{others:,} bytes are being read; try again")
            held += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= held


@dataclass(frozen=True)
class Service:
    """One server's engine and limits."""

    engine: Engine
    permits: Permits
    room: Room
    max_body_bytes: int
    timeout_ms: float = 30_000.0
    """Of a request that does not ask for less."""
    max_mails: int = 64
    """In one request."""
    body_timeout_s: float = 30.0

    def assigned(self, request_id: str) -> Engine:
        """The engine for one request, which keeps it when another model takes over meanwhile."""
        engine = self.engine
        chosen = engine.assigned(request_id) if isinstance(engine, Assigning) else engine
        told = account()
        told.model, told.version = chosen.model.name, chosen.model.version
        return chosen

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

    async def read(
        self,
        request: Request,
        parse: Callable[Concatenate[bytes, _More], _Result],
        *more: _More.args,
        **named: _More.kwargs,
    ) -> _Result:
        """What `parse` makes of a request's body; aside, where that takes long."""
        with self.room.body() as take:
            body = await payload.read(request, self.max_body_bytes, self.body_timeout_s, take)
            if len(body) > _ASIDE_BYTES:
                result = await asyncio.to_thread(parse, body, *more, **named)
            else:
                result = parse(body, *more, **named)
        self.require_ready()  # it may have closed while the body came in
        return result

    async def scored(
        self, engine: Engine, mails: Sequence[Parsed], deadline: float
    ) -> list[Scored]:
        """The verdict of an engine on each mail, in the order given.

        Raises:
            ApiError: the server cannot answer for one of them; the others are given up.
        """
        began = time.monotonic()
        tasks = [
            asyncio.ensure_future(engine.classify(mail.text, deadline=deadline)) for mail in mails
        ]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        account().mails = [
            MailAccount(mail.began, mail.ms, began, scored)
            for mail, scored in zip(mails, found, strict=True)
        ]
        return found


def options(engine: Engine) -> MailTextOptions:
    """What an engine's model reads of a mail."""
    return text_options(engine.model.extras)
