"""What stands in front of the replicas: Ray Serve's own proxy, or the HAProxy that Ray brings.

Serve's own is a Python process that reads each request and sends it on to a replica as a Ray call.
HAProxy passes bytes to a replica's own port: 1.5 ms of CPU a mail, with what is left of Serve's,
against 5.8, measured on a busy machine. It opens two ports more, on all interfaces, for its
counters; they tell numbers of requests and nothing of any mail. What a replica that dies was asked
is asked of another where it was short enough for HAProxy's buffer: the middleware here, which keeps
all of it, stands before Serve's proxy alone.

Serve reads this from the environment, in every process of a cluster: it holds for a Ray that is
started after it was set. On a cluster it is the operator who sets it.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final, Literal

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.request_ids import RequestIds
from serving.retry import TRY, Retry

ProxyName = Literal["ray", "haproxy"]

CALLBACK: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
BEFORE: Final = "serving.proxy:before"

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
    # The last one is the outermost.
    return [Middleware(Retry), Middleware(RequestIds), Middleware(Unsteered)]


@contextmanager
def in_front(proxy: ProxyName) -> Iterator[None]:
    """The environment for a Ray that is started in the block; what is set already stays."""
    if proxy == "ray":
        with _added({CALLBACK: BEFORE}):
            yield
        return
    # Ray's own place is the same for every cluster of a machine.
    with TemporaryDirectory(prefix="mailray-proxy-") as folder:
        chosen = {
            CALLBACK: BEFORE,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # A replica that ends waits for it; behind HAProxy, which tries another, for little.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
            # A verdict changes nothing, and the same feedback again is kept once.
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_BUFFER),
            "RAY_SERVE_HAPROXY_STATS_PORT": _free_port(),
            "RAY_SERVE_HAPROXY_METRICS_PORT": _free_port(),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        }
        with _added(chosen):
            yield


@contextmanager
def _added(chosen: Mapping[str, str]) -> Iterator[None]:
    added = {name: value for name, value in chosen.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _free_port() -> str:
    with socket.create_server(("", 0)) as server:
        return str(server.getsockname()[1])
