"""An id for every request: the client's X-Request-ID where it is one, else one made up.

It stands in the answer's header, in answers, and in logs. Serve's proxy echoes whatever it was sent
and answers 500 to what is not UTF-8, so the same middleware stands before it (`serving.proxy`).
"""

import re
import uuid
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = "X-Request-ID"
_TAKEN: Final = re.compile(r"[!-~]{1,128}")


class RequestIds:
    """ASGI middleware that settles the id and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # In the scope itself: what answers for a fault stands outside, and must see it too.
        headers = MutableHeaders(scope=scope)
        given = headers.get(HEADER, "")
        settled = given if _TAKEN.fullmatch(given) else uuid.uuid4().hex
        headers[HEADER] = settled

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Set, not added: Serve's proxy has added its own.
                MutableHeaders(scope=message)[HEADER] = settled
            await send(message)

        await self._app(scope, receive, with_id)


def request_id(request: HTTPConnection) -> str:
    """The settled id of a request that came through `RequestIds`."""
    return request.headers[HEADER]
