"""Seconds from `mailray submit` to the first training step, workers forked and workers started.

    python tests/bench/start_speed.py

On a head of its own, warm: each way has had one job before. The two take turns, a `smoke` job of
two workers each time; the first step is the first line of rank 0's audit. The last line is JSON.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.conftest import started_head  # noqa: E402
from tests.end_to_end.terminal import COMMAND, environment  # noqa: E402

REPEATS = 3
LIMIT_SECONDS = 300


def seconds_to_first_step(url: str, home: Path, name: str, fork: str) -> float:
    """Of one job, which is waited for to its end."""
    words = ["submit", "--address", url, "--", "train", "--recipe", "smoke", "tracking.audit=true"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, *words, "--name", name], cwd=ROOT, stdout=subprocess.DEVNULL,
        env=environment(home) | {"MAILRAY_FORK": fork}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    audit = home / "runs" / name / "audit"
    while not any(file.stat().st_size for file in audit.glob("*-0-*.jsonl")):
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        assert time.monotonic() - began < LIMIT_SECONDS
        time.sleep(0.05)
    waited = time.monotonic() - began
    assert process.wait(LIMIT_SECONDS) == 0
    return waited


def main() -> None:
    """Measure both ways and print them."""
    took: dict[str, list[float]] = {"1": [], "0": []}
    with tempfile.TemporaryDirectory() as folder, started_head() as head:
        for number in range(1 + REPEATS):
            for fork, seconds in took.items():
                name = f"fork-{fork}-{number}"
                seconds.append(seconds_to_first_step(head.url, Path(folder), name, fork))
                print(f"{name}: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)  # noqa: T201
    forked, plain = (statistics.median(seconds[1:]) for seconds in took.values())
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    result = {
        "benchmark": "start_speed",
        "forked_seconds": round(forked, 1),
        "started_seconds": round(plain, 1),
        "ratio": round(plain / forked, 2),
        "first_job_forked_seconds": round(took["1"][0], 1),
        "commit": commit.strip(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {"recipe": "smoke", "workers": 2, "repeats": REPEATS},
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
