"""The report of a model on many mails: seconds from scored mails to the file, and its bytes.

    PYTHONPATH=. python -m tests.bench.report_scale [--mails 100000]

Scores are made up: two labels, distinct scores, two baselines, operating points, slices, disguises,
suspects and excerpts, as `mailray report --show-content` has them. The figures with their bootstrap
intervals, of the model and of both baselines, are computed within the time.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np

from tests.training import evaluations
from training.assessment import LISTED
from training.excerpts import Excerpt
from training.report import write


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mails", type=int, default=100_000)
    mails = parser.parse_args().mails
    with tempfile.TemporaryDirectory() as scratch:
        few = evaluations.whole(Path(scratch), evaluations.HAM_SPAM, 1000)
        scored, *baselines = (
            evaluations.scored(evaluations.HAM_SPAM, mails, 0, skill) for skill in (4.0, 3.0, 3.5)
        )
        said = Excerpt("A subject of some words", "Ada <ada@example.com>", "a line of words\n" * 6)
        began, cpu = time.monotonic(), time.process_time()
        made = dataclasses.replace(
            few,
            scored=scored,
            values=scored.report(few.bundle.points),
            baselines=dict(zip(few.baselines or (), baselines, strict=True)),
            slices=list(few.slices or ()) * 50,
            suspects=list(few.suspects or ()) * 300,
        )
        named = [scored.ids[row] for row in made.wrong[:LISTED]]
        made = dataclasses.replace(made, excerpts=dict.fromkeys(named, said))
        file = write(Path(scratch, "report.html"), made)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        size = file.stat().st_size
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        "bench": "report_scale",
        "commit": commit.stdout.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        "config": {"mails": mails, "baselines": len(baselines), "numpy": np.__version__,
                   "matplotlib": matplotlib.__version__},
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "bytes": size,
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
