"""mailray's server against FastAPI and LitServe around a transformers pipeline, and the bare model.

    pip install litserve; apt install wrk
    python -m tests.bench.serve_speed HOME BUNDLE [--set proxy=ray]

HOME is a MAILRAY_HOME with the SpamAssassin corpus, BUNDLE a model bundle. All have the same model,
mails and cores, one after the other; `serve_contestants` says what the others are. wrk sends the
mails over loopback, from the machine that serves. The bare classifier is `classify_raw`: of one
mail after the other for its p50, of all at once for its speed. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from serving.classifier import Classifier
from tests.bench import servers
from tests.bench.train_speed import hardware

CONTESTANTS = ("mailray", "fastapi", "litserve")
PACKAGES = ("torch", "ray", "transformers", "fastapi", "uvicorn", "litserve")


def bare(bundle: Path, mails: Sequence[bytes], threads: int, seconds: float) -> dict[str, Any]:
    """The classifier without a server: p50 and p99 of one mail, mails a second in bulk."""
    torch.set_num_threads(threads)
    classifier = Classifier(bundle)
    classifier.classify_raw(mails[:32])
    single: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        classifier.classify_raw([mails[len(single) % len(mails)]])
        single.append(time.perf_counter() - began)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        classifier.classify_raw(mails)
        done += len(mails)
    return {
        "p50_ms": round(1000 * statistics.median(single), 2),
        "p99_ms": round(1000 * statistics.quantiles(single, n=100)[-1], 2),
        "bulk_mails_per_s": round(done / (time.perf_counter() - began), 1),
    }


def goals(found: dict[str, Any]) -> dict[str, Any]:
    """The issue's figures, of what was measured."""
    speeds = {name: found[name] for name in CONTESTANTS if name in found}
    if "mailray" not in speeds or "32" not in speeds["mailray"]:
        return {}
    ours = speeds["mailray"]
    rate = ours["32"]["mails_per_s"]
    met: dict[str, Any] = {"p99_over_p50_at_32": ours["32"]["p99_ms"] / ours["32"]["p50_ms"]}
    for name, theirs in speeds.items():
        if name != "mailray" and theirs["32"]["mails_per_s"]:
            met[f"times_{name}_at_32"] = rate / theirs["32"]["mails_per_s"]
    if "bare" in found:
        met["of_bare_bulk_at_32"] = rate / found["bare"]["bulk_mails_per_s"]
        if "1" in ours:
            met["p50_over_bare_ms"] = ours["1"]["p50_ms"] - found["bare"]["p50_ms"]
    return {name: round(value, 2) for name, value in met.items()}


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--only", nargs="+", default=["bare", *CONTESTANTS])
    parser.add_argument("--mails", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    servers.end_on_sigterm()
    load_before = round(os.getloadavg()[0], 1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mailray-bench-") as scratch:
        folder = Path(scratch) / "mails"
        folder.mkdir()
        bundle = options.bundle.absolute()
        mails = servers.sample(options.home, folder, options.mails)
        if "bare" in options.only:
            found["bare"] = bare(bundle, mails, options.threads, options.seconds)
        settings = (f"cpus={options.threads}", *options.set)
        for name in (name for name in CONTESTANTS if name in options.only):
            words = ["tests.bench.serve_contestants", name, str(bundle), "PORT"]
            if name == "mailray":
                words = servers.mailray(bundle, *settings)
            home = {"MAILRAY_HOME": f"{scratch}/home"}
            with servers.running(words, Path(scratch) / f"{name}.log", home) as server:
                servers.load(server, folder, 4, options.seconds / 3)  # warms it up
                found[name] = {
                    str(many): servers.load(server, folder, many, options.seconds)
                    for many in options.concurrency
                }
            sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")

    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    result = {
        "bench": "serve_speed",
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "load_before": load_before,
        "versions": {name: version(name) for name in PACKAGES},
        "settings": settings,
        "environment": {k: v for k, v in os.environ.items() if k.startswith("RAY_SERVE_")},
        "mails": len(mails),
        "seconds": options.seconds,
    }
    sys.stdout.write(json.dumps(result | found | {"goals": goals(found)}) + "\n")


if __name__ == "__main__":
    main()
