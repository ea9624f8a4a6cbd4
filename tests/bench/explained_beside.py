"""What classification loses while mails are explained beside it, in one process as in a replica.

    python -m tests.bench.explained_beside BUNDLE CORPUS [--cpus 2] [--seconds 15]

As many callers as said ask for verdicts one after another, first alone, then while another asks for
explanations without a pause, at each niceness of the explaining thread. The last line is one JSON
object; times are milliseconds.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from serving import explaining
from serving.batcher import Batcher
from serving.classifier import Classifier
from serving.explaining import Explaining
from serving.explanation import Explainer
from training.bundle import load
from training.mail import mail_text


async def measured(
    batcher: Batcher, texts: list[str], callers: int, seconds: float, explain: bool
) -> dict[str, Any]:
    """Latencies and rate of classification."""
    end = time.monotonic() + seconds
    times: list[float] = []
    explained: list[float] = []
    turn = itertools.cycle(texts)

    async def classify() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            await batcher.classify(next(turn))
            times.append(1000 * (time.perf_counter() - began))

    async def ask() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            await batcher.explain(
                next(turn), mail=None, label=None, deadline=time.monotonic() + 600
            )
            explained.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(classify())
        if explain:
            group.create_task(ask())
    return {
        "p50": round(float(np.percentile(times, 50)), 1),
        "p99": round(float(np.percentile(times, 99)), 1),
        "mails_per_second": round(len(times) / seconds, 1),
        "explained": len(explained),
        "seconds_of_one": round(float(np.median(explained)), 2) if explained else None,
    }


async def run(options: argparse.Namespace, texts: list[str]) -> list[dict[str, Any]]:
    rows = []
    for niceness in (None, *options.niceness):
        if niceness is not None:
            explaining.NICENESS = niceness
        batcher = Batcher(
            Classifier(options.bundle, "auto"),
            threads=options.cpus,
            batch_tokens=4_096,
            max_queued=512,
            explaining=Explaining(
                lambda: Explainer(load(options.bundle)),
                threads=options.cpus,
                seconds=600.0,
                limit=2,
            ),
        )
        if niceness is not None:  # its model is made for the first
            later = time.monotonic() + 600
            await batcher.explain(texts[0], mail=None, label=None, deadline=later)
        for callers in options.callers:
            await measured(batcher, texts, callers, 2, False)
            found = await measured(batcher, texts, callers, options.seconds, niceness is not None)
            rows.append({"niceness": niceness, "callers": callers} | found)
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
        batcher.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--niceness", type=int, nargs="+", default=[0, 10, 19])
    options = parser.parse_args()
    files = sorted(file for file in options.corpus.rglob("0*") if file.is_file())
    random.Random(3).shuffle(files)
    texts = [mail_text(file.read_bytes()) for file in files[:200]]
    rows = asyncio.run(run(options, texts))
    print(json.dumps({"rows": rows, "load": os.getloadavg()[0]}))  # noqa: T201


if __name__ == "__main__":
    main()
