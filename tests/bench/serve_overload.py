"""mailray's server at four times what it can do: what it refuses, and how late the rest is.

    python -m tests.bench.serve_overload HOME BUNDLE [--set proxy=ray]

HOME is a MAILRAY_HOME with the SpamAssassin corpus. Its capacity is measured first, with 32
callers. Then mails come at four times that rate for a minute, on a clock of their own: whoever is
refused does not wait, and nobody asks again. Accepted ones have a bound: the queue, at the speed
that was measured. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import servers
from tests.bench.plain import Connections
from tests.bench.train_speed import hardware

TIMES = 4


async def flood(
    port: int, mails: Sequence[bytes], rate: float, seconds: float
) -> tuple[list[float], Counter[int], list[str], float]:
    """Send mails at a rate; latencies of the accepted in s, statuses, Retry-After, what was sent/s.

    A status of 0 is an answer that never came.
    """
    accepted: list[float] = []
    statuses: Counter[int] = Counter()
    retry: list[str] = []
    connections = Connections(port, servers.PATH)

    async def one(raw: bytes) -> None:
        began = time.perf_counter()
        try:
            reply = await connections.post(raw, 60)
        except (OSError, EOFError, TimeoutError, ValueError):
            statuses[0] += 1
            return
        statuses[reply.status] += 1
        if reply.status == 200:
            accepted.append(time.perf_counter() - began)
        elif reply.status == 429:
            retry.append(reply.headers.get("retry-after", "none"))

    async with asyncio.TaskGroup() as group:
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            for _ in range(int(now * rate) - sent):
                group.create_task(one(mails[sent % len(mails)]))
                sent += 1
            await asyncio.sleep(0.005)
        offered = sent / (time.perf_counter() - began)
    connections.close()
    return accepted, statuses, retry, offered


async def watched(
    server: servers.Server, mails: Sequence[bytes], rate: float, seconds: float
) -> tuple[Any, list[float]]:
    """A flood, and the replica's memory in MiB each two seconds of it."""
    memory: list[float] = []

    async def watch() -> None:
        while True:
            usage = await asyncio.to_thread(server.usage)
            memory.append(round(usage["replica"][1], 1))
            await asyncio.sleep(2)

    watching = asyncio.create_task(watch())
    found = await flood(int(server.url.rpartition(":")[2]), mails, rate, seconds)
    watching.cancel()
    return found, memory


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    servers.end_on_sigterm()
    load_before = round(os.getloadavg()[0], 1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    settings = (f"cpus={options.threads}", *options.set)
    with tempfile.TemporaryDirectory(prefix="mailray-bench-") as scratch:
        folder = Path(scratch) / "mails"
        folder.mkdir()
        mails = servers.sample(options.home, folder, 256)
        words = servers.mailray(options.bundle.absolute(), *settings)
        home = {"MAILRAY_HOME": f"{scratch}/home"}
        with servers.running(words, Path(scratch) / "mailray.log", home) as server:
            servers.load(server, folder, 32, 5)
            before = servers.load(server, folder, 32, 10)
            capacity = before["mails_per_s"]
            flooded, memory = asyncio.run(watched(server, mails, TIMES * capacity, options.seconds))
            time.sleep(5)
            after = servers.load(server, folder, 32, 10)
    accepted, statuses, retry, offered = flooded
    p50, p99, longest = np.percentile(accepted, [50, 99, 100]) if accepted else (np.nan,) * 3
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    settled = memory[len(memory) // 4 :]  # the queue has filled by then
    result = {
        "bench": "serve_overload",
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "load_before": load_before,
        "settings": settings,
        "seconds": options.seconds,
        "capacity_mails_per_s": capacity,
        "offered_mails_per_s": round(offered, 1),
        "accepted_mails_per_s": round(len(accepted) / options.seconds, 1),
        "statuses": dict(sorted(statuses.items())),
        "retry_after": dict(Counter(retry)),
        "accepted_s": {"p50": round(p50, 2), "p99": round(p99, 2), "max": round(longest, 2)},
        "replica_mib": {"first": memory[0], "settled": settled[0], "last": memory[-1],
                        "most": max(memory)},
        "after_over_before": round(after["mails_per_s"] / capacity, 2) if capacity else None,
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
