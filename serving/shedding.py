"""No more requests than may wait: the next one is refused in Serve's proxy, before it costs much.

A refusal by a replica costs the proxy as much as a verdict does. At four times the load that the
replicas bear it would do nothing else, and those that it let in would wait for it. `serving.proxy`
puts this ASGI middleware there; before HAProxy's replicas `serving.haproxy` does the same.
"""

import math
import os
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ApiError, answer

LIMIT: Final = "MAILRAY_PROXY_REQUESTS"
"""The environment variable that has the number of requests for each proxy; without it, no limit."""

MESSAGE: Final = "as many requests as allowed are waiting; try again"
_LONGEST_S: Final = 30


class Shed:
    """Refuses what asks for work while `limit` requests that do are under way."""

    def __init__(self, app: ASGIApp, limit: int | None) -> None:
        self._app = app
        self._limit = limit
        self._under_way = 0
        self._took = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._limit is None or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._limit:
            # Read: or the caller would see its connection reset before it has the answer.
            while (await receive()).get("more_body", False):
                pass
            await self._refusal(scope["path"])(scope, receive, send)
            return
        self._under_way += 1
        began = time.monotonic()
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            self._took = time.monotonic() - began

    def _refusal(self, path: str) -> ASGIApp:
        # The one before has waited as long as the next one would.
        seconds = min(max(math.ceil(self._took), 1), _LONGEST_S)
        return answer(ApiError("overloaded", MESSAGE, {"Retry-After": str(seconds)}), path)


def limit() -> int | None:
    """The limit that the environment has; one that is no number is none."""
    text = os.environ.get(LIMIT, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
