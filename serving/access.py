"""Who may call which route: asked before a byte of a body is read.

`Gate` is an ASGI middleware in front of all routes. A path that is in no row of `NEEDS` takes a
token like any other, so a route that is forgotten here is closed rather than open. The tokens file
is looked at once a second; a change holds from then on, and one that cannot be read changes nothing
but the log.
"""

import datetime as dt
import ipaddress
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from serving.account import account, path_of
from serving.errors import KINDS, ApiError, Code, answer
from serving.tokens import Scope, Token, holder, parse_rate, read
from training.schema import ConfigError

log = logging.getLogger(__name__)

Area = Literal["docs", "page", "metrics"]
OPEN: Final = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""What probes ask."""
AREAS: Final[Mapping[str, Area]] = {
    "/docs": "docs",
    "/docs/oauth2-redirect": "docs",
    "/redoc": "docs",
    "/openapi.json": "docs",
    "/": "page",
    "/metrics": "metrics",
}
NEEDS: Final[tuple[tuple[str, Scope], ...]] = (
    ("/v1/classify", "classify"),
    ("/v1/explain", "explain"),
    ("/v1/feedback", "feedback"),
    ("/metrics", "metrics"),
)
"""The scope for a path and all below it; any token will do for the others that only tell."""
_CLOSED: Final = (
    "this server has no tokens, so it answers its own machine only; it is started with "
    "tokens=FILE, or with open=true"
)
_STATE: Final = "mailray.caller"
_REFUSALS: Final[tuple[Code, ...]] = (
    "unauthorized",
    "forbidden",
    "rate_limited",
    "headers_too_large",
)
_LOOK_S: Final = 1.0
_MAX_HEADERS: Final = 32 * 1024


def needed(path: str, method: str = "GET") -> Scope | None:
    """The scope that a call needs; None where any token will do."""
    if path.startswith("/v2/"):
        return "classify" if path.endswith("/infer") or method == "POST" else None
    for start, scope in NEEDS:
        if path == start or path.startswith(f"{start}/"):
            return scope
    return None


class Bucket:
    """A token bucket: `count` requests at once, and as many again within each `seconds`."""

    def __init__(self, count: float, seconds: float, clock: Callable[[], float]) -> None:
        self._capacity = max(1.0, count)
        self._speed = count / seconds
        self._clock = clock
        self._level, self._at = self._capacity, clock()

    def take(self, count: float = 1.0, *, force: bool = False) -> float:
        """Take what one request costs; the seconds to wait where there is not one, else 0.

        Forced, it goes into debt, which the next ones pay off.
        """
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._speed)
        self._at = now
        if self._level < 1.0 and not force:
            return (1.0 - self._level) / self._speed
        self._level -= count
        return 0.0


@dataclass(frozen=True)
class Caller:
    """Who sent a request; '' where the server knows no tokens."""

    name: str = ""
    bucket: Bucket | None = None

    def charge(self, mails: int) -> None:
        """Count the further mails of a request that has several."""
        if self.bucket is not None and mails > 0:
            self.bucket.take(mails, force=True)


class Access:
    """The tokens of a server, and what is open without one.

    Raises:
        ConfigError: the tokens file cannot be read.
    """

    def __init__(
        self,
        file: Path | None,
        *,
        open_to_all: bool = False,
        public: Collection[Area] = ("docs", "page"),
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = file
        self._public = frozenset(public)
        self._open_to_all = open_to_all
        self._replicas = replicas
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._seen, self._looked = self._stamp(), clock()
        self._tokens = read(file) if file else ()

    def public(self, path: str) -> bool:
        """Whether a path needs no token; the page's own files are as public as the page."""
        area = "page" if path.startswith("/page/") else AREAS.get(path)
        return path in OPEN or area in self._public

    def caller(self, scope: AsgiScope) -> Caller:
        """Who this is.

        Raises:
            ApiError: they may not make this call, or not now.
        """
        path = path_of(scope)
        if self.public(path):
            return Caller()
        if self.file is None:
            if not self._open_to_all and not _local(scope):
                raise ApiError("forbidden", _CLOSED)
            return Caller()
        self._look()
        kind, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise ApiError("unauthorized", "a token is needed, as Authorization: Bearer TOKEN")
        token = holder(self._tokens, secret.strip())
        if token is None or token.expired(dt.datetime.now(dt.UTC)):
            raise ApiError(
                "unauthorized",
                "this token is not known" if token is None else "this token has expired",
                {"WWW-Authenticate": 'Bearer realm="mailray", error="invalid_token"'},
            )
        account().caller = token.name
        scope_needed = needed(path, scope["method"])
        if scope_needed is not None and scope_needed not in token.scopes:
            raise ApiError(
                "forbidden",
                f"this token has not the scope {scope_needed}",
                {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope_needed}"'},
            )
        bucket = self._bucket(token)
        if bucket is not None and (wait := bucket.take()):
            raise ApiError(
                "rate_limited",
                f"more requests than {token.rate} with this token",
                {"Retry-After": str(math.ceil(wait))},
            )
        return Caller(token.name, bucket)

    def _bucket(self, token: Token) -> Bucket | None:
        if token.rate is None:
            return None
        key = (token.sha256, token.rate)
        if key not in self._buckets:
            count, seconds = parse_rate(token.rate)
            # Replicas do not know of each other: each allows its share.
            self._buckets[key] = Bucket(count / self._replicas, seconds, self._clock)
        return self._buckets[key]

    def _stamp(self) -> tuple[int, int, int] | None:
        """Of the file now; a mounted secret is a link that is turned to another file."""
        try:
            found = self.file.stat() if self.file else None
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None

    def _look(self) -> None:
        now = self._clock()
        if self.file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        if (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._tokens = read(self.file)
        except ConfigError as error:
            said = "; ".join(str(error).splitlines())
            log.error("the tokens read before stay valid, since %s", said)
            return
        kept = {(token.sha256, token.rate) for token in self._tokens}
        self._buckets = {key: value for key, value in self._buckets.items() if key in kept}
        log.info("%d tokens read from %s", len(self._tokens), self.file)


class Gate:
    """The middleware."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its caller."""
        if scope["type"] == "http":
            try:
                if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADERS:
                    limit = f"header lines have more than {_MAX_HEADERS:,} bytes"
                    raise ApiError("headers_too_large", limit)
                scope = {**scope, _STATE: self._access.caller(scope)}
            except ApiError as error:
                await answer(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def caller(request: Request) -> Caller:
    """Who sent a request that a route works on."""
    found: Caller = request.scope.get(_STATE) or Caller()
    return found


def secured(document: dict[str, Any], access: Access) -> dict[str, Any]:
    """An OpenAPI document with what the gate asks for, and may refuse, at every call."""
    document["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Of `mailray tokens create`; a server without a tokens file takes any.",
        }
    }
    for path, methods in document["paths"].items():
        if access.public(path):
            continue
        kind_of_body = "InferenceError" if path.startswith("/v2") else "ErrorBody"
        reference = {"$ref": f"#/components/schemas/{kind_of_body}"}
        error = {"application/json": {"schema": reference}}
        for method, call in methods.items():
            scope = needed(path, method.upper())
            call["security"] = [{"token": []}] + ([] if access.file else [{}])
            if scope:
                call["description"] = f"{call.get('description', '')}\n\nScope: `{scope}`.".strip()
            for code in _REFUSALS:
                kind = KINDS[code]
                there = call["responses"].setdefault(
                    str(kind.status), {"description": "", "content": error}
                )
                line = f"`{code}`: {kind.meaning}"
                there["description"] = f"{there['description']} {line}".strip()
                there.setdefault("headers", {}).update(
                    {name: {"schema": {"type": "string"}} for name in kind.headers}
                )
    return document


def _local(scope: AsgiScope) -> bool:
    """Whether a call comes from this machine; a Unix socket has no address, and is here."""
    if scope.get("client") is None:
        return True
    try:
        address = ipaddress.ip_address(scope["client"][0].partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
