"""No more requests than may wait: the next one is refused in Serve's proxy, before it costs much.

A refusal by a replica costs the proxy as much as a verdict does. At four times the load that the
replicas bear it would do nothing else, and those that it let in would wait for it. `serving.proxy`
puts this ASGI middleware there; before HAProxy's replicas `serving.haproxy` does the same.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ApiError, answer

LIMIT: Final = "MAILRAY_PROXY_REQUESTS"
"""The environment variable that has the number of requests for each proxy; without it, no limit."""

MESSAGE: Final = "as many requests as allowed are waiting; try again"
_LONGEST_S: Final = 30
_PATIENCE_S: Final = 10.0
_BYTES: Final = 4_000_000
"""Of a refused body that are read."""


class Shed:
    """Refuses what asks for work while `limit` requests that do are under way."""

    def __init__(
        self, app: ASGIApp, limit: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._clock = clock
        self._limit = limit
        self._under_way = 0
        self._took = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._limit is None or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._limit:
            whole = await _passed_over(receive)
            await self._refusal(scope["path"], whole)(scope, receive, send)
            return
        self._under_way += 1
        began = self._clock()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                self._took = self._clock() - began
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._under_way -= 1

    def _refusal(self, path: str, whole: bool) -> ASGIApp:
        # The last one that was answered has waited as long as the next one would.
        headers = {"Retry-After": str(min(max(math.ceil(self._took), 1), _LONGEST_S))}
        if not whole:
            headers["Connection"] = "close"
        return answer(ApiError("overloaded", MESSAGE, headers), path)


async def _passed_over(receive: Receive) -> bool:
    """Read a body, or the caller would see its connection reset before it has the answer.

    Gives whether all of it came: it is waited for in reason.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            read = 0
            while read <= _BYTES:
                message = await receive()
                if not message.get("more_body", False):
                    return True
                read += len(message.get("body", b""))
    return False


def limit() -> int | None:
    """The limit that the environment has; one that is no number is none."""
    text = os.environ.get(LIMIT, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
