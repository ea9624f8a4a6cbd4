"""Requests while the alias moves twice and replicas are killed: how many fail, and who answered.

    python tests/bench/rollover.py --requests 100000 --concurrency 16

Three versions of a tiny model (recipe `smoke`) are registered, `mailray serve` follows the champion
with two replicas, and connections of plain HTTP send one mail after another. After a quarter of the
requests the alias moves, after a half a replica is killed with SIGKILL, after three quarters the
alias moves again, and another replica is killed amid that change. Every answer must be a 200 by a
version that was current or next while it was asked: the old one until the last replica that served
it has changed over, as the replicas' journal tells, the new one from the move on. At the end the
server gets SIGTERM amid requests: those that it had must still be answered.

Prints one JSON line last.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from serving.journal import Entry, Journal  # noqa: E402
from tests.bench.plain import Connections  # noqa: E402
from tests.conftest import unused_port  # noqa: E402
from tests.training.registered import NAME, registered  # noqa: E402
from training.home import Home  # noqa: E402
from training.promotion import promote  # noqa: E402

MAIL = b"From: Ann <ann@example.org>\r\nSubject: Lunch\r\n\r\nAt noon, as ever?\r\n"


@dataclass
class Answer:
    """One request: when it was sent and answered, with which status, by which version."""

    sent: float
    done: float
    status: int
    version: str
    fault: str = ""


@dataclass
class Load:
    """Connections that share a number of requests."""

    port: int
    requests: int
    path: str = "/v1/classify/raw"
    answers: list[Answer] = field(default_factory=list)
    begun: int = 0
    enough: bool = False
    """Whether it may end: all that was to happen has happened."""

    async def run(self, concurrency: int) -> None:
        """Send them all."""
        connections = Connections(self.port, self.path)
        await asyncio.gather(*(self._caller(connections) for _ in range(concurrency)))
        connections.close()

    async def _caller(self, connections: Connections) -> None:
        while self.begun < self.requests or not self.enough:
            self.begun += 1
            sent = time.time()
            try:
                reply = await connections.post(MAIL, 120)
                good = reply.status == 200
                version = json.loads(reply.body)["version"] if good else ""
                fault = "" if good else reply.body[:200].decode("latin-1")
                self.answers.append(Answer(sent, time.time(), reply.status, version, fault))
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.answers.append(Answer(sent, time.time(), 0, "", repr(error)))
                await asyncio.sleep(0.05)


def replicas(home: Home) -> list[psutil.Process]:
    """The replicas' processes of the server whose home this is, and of no other."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "ServeReplica:mailray" in " ".join(process.cmdline()) and (
                process.environ().get("MAILRAY_HOME") == str(home.root)
            ):
                found.append(process)
    return found


def not_allowed(
    answers: list[Answer], moves: list[tuple[float, str, str]], settled: list[float]
) -> list[Answer]:
    """The answers by a version that was neither current nor next while they were asked."""
    windows = {moves[0][1]: [(0.0, settled[0])]}
    for (at, _, version), until in zip(moves, [*settled[1:], float("inf")], strict=True):
        windows.setdefault(version, []).append((at, until))
    return [
        answer
        for answer in answers
        if answer.status == 200
        and not any(
            answer.done >= begin and answer.sent <= end
            for begin, end in windows.get(answer.version, [])
        )
    ]


def changed_over(
    entries: list[Entry], moves: list[tuple[float, str, str]], kills: list[float]
) -> list[float]:
    """For each move, when the last replica that had served the version before served the next.

    One that is killed instead has ended to serve it then.
    """
    ends = []
    for number, (at, _, version) in enumerate(moves):
        until = moves[number + 1][0] if number + 1 < len(moves) else float("inf")
        before = {entry.replica for entry in entries if entry.time < at}
        first: dict[str, float] = {}
        for entry in entries:
            if at <= entry.time < until and entry.version == version and entry.replica in before:
                first.setdefault(entry.replica, entry.time)
        gone = before - first.keys()
        killed = [kill for kill in kills if gone and at <= kill < until]
        ends.append(max([at, *first.values(), *killed]))
    return ends


async def scenario(home: Home, port: int, requests: int, concurrency: int) -> dict[str, Any]:
    load = Load(port, requests)
    moves: list[tuple[float, str, str]] = []
    kills: list[float] = []
    journal = Journal(home.models / NAME / "champion.jsonl", "")

    async def after(share: float) -> None:
        while len(load.answers) < share * requests:
            await asyncio.sleep(0.05)

    async def move(version: str) -> None:
        at = time.time()
        moved = await asyncio.to_thread(promote, home, NAME, version, force=False)
        moves.append((at, str(moved.before), moved.version))

    def replaced() -> bool:
        return any(entry.time > kills[0] for entry in journal.entries())

    def kill() -> None:
        process = min(replicas(home), key=lambda process: process.create_time())
        process.send_signal(signal.SIGKILL)
        kills.append(time.time())

    async def events() -> None:
        await after(0.25)
        await move("2")
        await after(0.5)
        kill()
        await after(0.75)
        while not replaced():
            await asyncio.sleep(0.2)
        await asyncio.sleep(3)  # until Serve sends requests there: else nobody would be left
        await move("3")
        await asyncio.sleep(0.5)
        kill()
        late = time.monotonic() + 120
        while not any(a.version == "3" for a in load.answers[-99:]) and time.monotonic() < late:
            await asyncio.sleep(0.2)
        load.enough = True

    began = time.time()
    await asyncio.gather(load.run(concurrency), events())
    seconds = time.time() - began
    entries = journal.entries()
    failed = [answer for answer in load.answers if answer.status != 200]
    settled = changed_over(entries, moves, kills)
    wrong = not_allowed(load.answers, moves, settled)
    times = sorted(answer.done - answer.sent for answer in load.answers)
    return {
        "requests": len(load.answers),
        "failed": len(failed),
        "faults": Counter(f"{answer.status} {answer.fault}" for answer in failed).most_common(5),
        "by_a_wrong_version": len(wrong),
        "by_version": dict(Counter(answer.version for answer in load.answers)),
        "requests_per_s": round(len(load.answers) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(times), 1),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "slowest_s": round(times[-1], 2),
        "changes_over_s": [
            round(end - at, 2) for (at, _, _), end in zip(moves, settled, strict=True)
        ],
        "slowest_after_a_kill_s": [
            round(max(a.done - a.sent for a in load.answers if a.sent <= at <= a.done), 2)
            for at in kills
        ],
        "generations": [(round(e.time - began, 2), e.replica, e.version) for e in entries],
    }  # fmt: skip


def serve(home: Home, port: int, *overrides: str) -> "subprocess.Popen[bytes]":
    """`mailray serve`, until it answers."""
    environment = os.environ | {"MAILRAY_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
    with (home.root / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "cluster.main", "serve", "--model", f"{NAME}@champion",
                f"port={port}", "replicas=2", "watch_s=1", *overrides,
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
    until = time.monotonic() + 900
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                return process
        if process.poll() is not None or time.monotonic() > until:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise SystemExit((home.root / "serve.log").read_text())
        time.sleep(0.5)


def measured(requests: int, concurrency: int, *overrides: str) -> dict[str, Any]:
    """The whole: models, server, load; what came of it."""
    with tempfile.TemporaryDirectory(prefix="mr") as folder:
        home, port = Home(Path(folder)), unused_port()
        for seed in range(3):
            registered(home, home.root / "made", seed=seed, promote="better")
        said("registered")
        process = serve(home, port, *overrides)
        said("serving")
        try:
            result = asyncio.run(scenario(home, port, requests, concurrency))
            said("stopping")
            return result | asyncio.run(ending(process, port))
        finally:
            process.terminate()
            process.wait(300)
            said("stopped")


async def ending(process: "subprocess.Popen[bytes]", port: int) -> dict[str, Any]:
    """SIGTERM amid requests: what became of those that were on their way."""
    load = Load(port, 10**9, enough=True)
    sending = asyncio.create_task(load.run(8))
    await asyncio.sleep(2)
    process.terminate()
    at = time.time()
    while process.poll() is None and time.time() - at < 300:
        await asyncio.sleep(0.05)
    load.requests = 0
    await sending
    asked = [answer for answer in load.answers if answer.sent <= at <= answer.done]
    return {
        "in_flight_at_sigterm": len(asked),
        "of_them_failed": sum(answer.status != 200 for answer in asked),
        "stopped_after_s": round(time.time() - at, 1),
        "exit_code": process.returncode,
    }


def said(what: str) -> None:
    """What it is at, with the time, for whoever waits."""
    print(f"{time.strftime('%T')} {what}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--concurrency", type=int, default=16)
    options.add_argument("overrides", nargs="*", help="of the serving config")
    given = options.parse_args()
    result = measured(given.requests, given.concurrency, *given.overrides)
    print(json.dumps({"benchmark": "rollover", "concurrency": given.concurrency} | result))  # noqa: T201


if __name__ == "__main__":
    main()
