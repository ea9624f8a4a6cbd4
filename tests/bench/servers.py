"""Servers to be measured, each a process with its children, and wrk, which loads them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PATH: Final = "/v1/classify/raw"
_MARK: Final = "MAILRAY_BENCH_SERVER"
"""A variable in the environment of a server's processes, by which they are found."""
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    mark: str

    def usage(self) -> dict[str, tuple[float, float]]:
        """CPU seconds and resident MiB by kind of process: replica, proxy and so on."""
        kinds: dict[str, tuple[float, float]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self.mark}".encode() not in (folder / "environ").read_bytes():
                    continue
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            words = {"Replica": "replica", "ProxyActor": "proxy", "HAProxy": "proxy"}
            words |= {"haproxy": "haproxy", "Controller": "controller", "ray": "ray"}
            kind = next((name for word, name in words.items() if word in title), "server")
            cpu, memory = kinds.get(kind, (0.0, 0.0))
            ticks = int(fields[11]) + int(fields[12])
            kinds[kind] = (cpu + ticks / _TICK, memory + int(fields[21]) * _PAGE / 2**20)
        return kinds


@contextmanager
def running(
    words: Sequence[str], log: Path, environment: Mapping[str, str] = {}, limit_s: float = 180
) -> Iterator[Server]:
    """A server started by a command in which PORT stands for a free port, until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mark = f"{os.getpid()}-{port}"
    command = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in words)]
    given = os.environ | {_MARK: mark, "PYTHONPATH": str(ROOT)} | dict(environment)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=given, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + limit_s
        while not _ready(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{words[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}", mark)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def end_on_sigterm() -> None:
    """Let SIGTERM, as of `timeout`, stop the servers too."""

    def leave(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def mailray(bundle: Path, *settings: str) -> list[str]:
    """The command of mailray's own server."""
    return ["cluster.main", "serve", "--model", str(bundle), "port=PORT", *settings]


def sample(home: Path, folder: Path, count: int) -> list[bytes]:
    """Some mails of the SpamAssassin corpus in a home, by chance, as files 0, 1, 2, ... too."""
    files = sorted((home / "corpora/spamassassin").glob("*/*"))
    if not files:
        raise SystemExit(f"no mails in {home}: MAILRAY_HOME=... mailray data fetch spamassassin")
    mails = [file.read_bytes() for file in Random(0).sample(files, min(count, len(files)))]
    for number, raw in enumerate(mails):
        (folder / str(number)).write_bytes(raw)
    return mails


def load(server: Server, mails: Path, concurrency: int, seconds: float) -> dict[str, Any]:
    """What wrk makes of a server: seconds, answers by kind, percentiles, CPU of the processes."""
    before = server.usage()
    words = ["wrk", "-t1", f"-c{concurrency}", f"-d{max(1, round(seconds))}s", "--timeout=60s"]
    words += ["-s", str(ROOT / "tests/bench/wrk_mails.lua"), server.url + PATH, "--"]
    words += [str(mails), str(sum(1 for _ in mails.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 90, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    found["mails_per_s"] = round(found["ok"] / found["seconds"], 1)
    used = {kind: cpu - before.get(kind, (0, 0))[0] for kind, (cpu, _) in server.usage().items()}
    found["cpu_ms_a_mail"] = {
        kind: round(1000 * spent / max(1, found["ok"] + found["refused"]), 2)
        for kind, spent in used.items()
        if spent > 0
    }
    return found
