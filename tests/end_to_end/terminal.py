"""The command line as a user has it: a process, its two streams, its exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "cluster.main"]
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one object."""
        return json.loads(self.out)


Mailray = Callable[..., Said]


def environment(home: Path) -> dict[str, str]:
    """Of a command with a home of its own, and no Ray but its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"MAILRAY_HOME": str(home), "HF_HUB_OFFLINE": "1", "MLFLOW_TRACKING_URI": ""}


@contextmanager
def started(home: Path, *words: str, **more: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that goes on, with `more` in its environment; killed at the block's end."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        env=environment(home) | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(home: Path, *words: str, timeout: float = 240) -> Said:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def processes(home: Path, title: str) -> list[int]:
    """The Ray processes of a home that carry a title."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (
                entry.name.isdigit()
                and (entry / "cmdline").read_bytes().startswith(f"ray::{title}".encode())
                and f"MAILRAY_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
            ):
                found.append(int(entry.name))
    return found
