"""A second try for requests whose replica has died; it runs in Serve's HTTP proxy.

Serve replaces a dead replica, but the requests that it was working on get a 500: its proxy ends
them without having begun an answer. This ASGI middleware around the proxy sends them to the next
replica. A verdict changes nothing, so asking twice is safe; other requests are left as they are.

It keeps what it has read of a body until the answer begins, whose first part it holds back until
there is more. `serving.proxy` puts it there.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

_TRIES: Final = 5
_PAUSE_S: Final = 0.05
"""Before the second try, and twice as long before each next; Serve learns of a death meanwhile."""
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_VERDICTS: Final = ("/v1/classify", "/v1/explain", "/v2/models/")
"""What a POST to these paths asks for is computed, and nothing is kept."""

TRY: Final = "X-Mailray-Try"
"""The header of a second try, and its number; Serve's proxy is told to drop a caller's own."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

logger = logging.getLogger("ray.serve")


class Retry:
    """Tries a request again whose application ended without an answer."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _repeatable(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        for number in range(_TRIES):
            answer = _Answer(send, body)
            # The proxy writes into both.
            tried = {**scope, "headers": [*scope["headers"], *_told(number)]}
            try:
                await self._app(tried, body.again(), answer)
            except Exception:
                if answer.begun or number == _TRIES - 1:
                    raise
            if answer.begun or body.gone:
                return
            logger.warning("a replica died over a request; try %d of %d", number + 2, _TRIES)
            await asyncio.sleep(_PAUSE_S * 2**number)


class _Body:
    """A request's body, which can be read again from its beginning until the answer begins."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] | None = []
        self.gone = False
        """Whether the client has gone away."""

    def again(self) -> Receive:
        """A reader that begins at the beginning."""
        earlier = list(self._kept or ())

        async def receive() -> Message:
            if earlier:
                return earlier.pop(0)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
            elif self._kept is not None:
                self._kept.append(message)
            return message

        return receive

    def forget(self) -> None:
        """Keep nothing any more: there will be no other try."""
        self._kept = None


class _Answer:
    """Passes an answer on, its first part not before there is a second."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body
        self._start: Message | None = None
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self.begun:
            self._start = message
            return
        if self._start is not None:
            self.begun, start, self._start = True, self._start, None
            self._body.forget()
            await self._send(start)
        self.begun = True
        await self._send(message)


def _told(number: int) -> list[tuple[bytes, bytes]]:
    """What tells a replica that another was asked before it."""
    return [(TRY.lower().encode(), str(number + 1).encode())] if number else []


def _repeatable(method: str, path: str) -> bool:
    return method in _SAFE or (method == "POST" and path.startswith(_VERDICTS))
