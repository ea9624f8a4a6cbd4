"""The account of a request: what became of it, for metrics, the log and traces.

A middleware opens it and tells it to whoever wants it once the answer is sent, so none of them
makes a caller wait. In between, whoever knows something of the request writes it there: `account()`
is that of the request which the running task works on. Nothing in it is of a mail's content.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.request_ids import HEADER
from serving.retry import TRY

if TYPE_CHECKING:
    from serving.engine import Scored

GONE: Final = 499
"""The status of a request whose caller went away before an answer, as nginx has it."""
UNMATCHED: Final = "unmatched"
"""The route of paths that have none: what callers make up is in no metric and no log."""
_ID, _TRY = HEADER.lower().encode(), TRY.lower().encode()
_WANTED: Final = frozenset({_ID, _TRY, b"traceparent", b"tracestate"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MailAccount:
    """One mail that got its verdict."""

    parsed_at: float
    """When its parsing began, by `time.monotonic`."""
    parse_ms: float
    began: float
    """When the engine got it, by the same clock; from then on its timings follow each other."""
    scored: "Scored"


@dataclass(slots=True)
class Account:
    """One request."""

    request_id: str = ""
    method: str = ""
    """Of those that HTTP knows, or OTHER."""
    route: str = UNMATCHED
    """The path as its route has it: /v2/models/{name}."""
    tries: int = 1
    """By how many replicas it was tried, this one included."""
    at: float = 0.0
    """When it came, in seconds since 1970."""
    began: float = 0.0
    """The same by `time.monotonic`."""
    trace: dict[str, str] = field(default_factory=dict)
    """The caller's trace context: the headers traceparent and tracestate."""
    trace_id: str = ""
    """Of the trace that it is in, where there are traces."""
    caller: str = ""
    """The name of the token that came with it."""
    bytes_in: int = 0
    """Of its body."""
    model: str = ""
    version: str = ""
    mails: list[MailAccount] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The codes of mails that could not be read, where others of the request were answered."""
    explained: tuple[float, float] | None = None
    """When its explanation began, by `time.monotonic`, and the seconds that it took."""
    code: str = ""
    """Of the refusal, if it was refused."""
    status: int = GONE
    seconds: float = 0.0
    """From the first byte of the request to the last of the answer."""


Observer = Callable[[Account], None]
"""Is told of each request when it has ended; on the event loop, so it must be quick."""

_CURRENT: ContextVar[Account | None] = ContextVar("account", default=None)


def account() -> Account:
    """That of the request which is being worked on; outside of any, one that nobody reads."""
    return _CURRENT.get() or Account()


class Routes:
    """The paths of an application, by which a request is told of."""

    def __init__(self, paths: Iterable[str]) -> None:
        """`paths` as their routes have them: /v2/models/{name}."""
        known = set(paths)
        self._plain = {path for path in known if "{" not in path}
        self._patterns: list[tuple[re.Pattern[str], str]] = [
            (compile_path(path)[0], path) for path in sorted(known - self._plain)
        ]

    def of(self, scope: Scope) -> str:
        """The route of a request, also of one that is refused before it gets there."""
        path = path_of(scope)
        if path in self._plain:
            return path
        return next((name for regex, name in self._patterns if regex.match(path)), UNMATCHED)


class Accounts:
    """ASGI middleware inside `RequestIds` that opens, closes and tells accounts."""

    def __init__(self, app: ASGIApp, routes: Routes, observers: Sequence[Observer]) -> None:
        self._app = app
        self._routes = routes
        self._observers = observers
        # HAProxy tells of no try of its own.
        self._from_anyone = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        opened = self._opened(scope)
        token = _CURRENT.set(opened)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                opened.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _CURRENT.reset(token)
            opened.seconds = time.monotonic() - opened.began
            for tell in self._observers:
                try:
                    tell(opened)
                except Exception as error:  # what watches a request must not harm it
                    log.error("a request is not told of: %s", type(error).__name__)

    def _opened(self, scope: Scope) -> Account:
        found = {
            name: value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED
        }
        method, tries = scope["method"], found.pop(_TRY, "")
        if self._from_anyone:
            tries = ""
        return Account(
            request_id=found.pop(_ID, ""),
            method=method if method in _METHODS else "OTHER",
            route=self._routes.of(scope),
            tries=int(tries) if re.fullmatch("[1-9]", tries) else 1,
            at=time.time(),
            began=time.monotonic(),
            trace={name.decode(): value for name, value in found.items()},
        )


def path_of(scope: Scope) -> str:
    """The path of a request below the application's root."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] or "/" if root and path.startswith(root) else path
