"""The audit log: which mails each step of a run was made of, on request (`tracking.audit`).

runs/<name>/audit/<start>-<rank>-<world>.jsonl    a line a step: epoch, step, rows, time

A line is written before the step's gradients are exchanged: no step changes the weights that not
every rank has a line of. Steps that are done again after a loss stand there again.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from training.batches import Batch


class Audit:
    """One rank's log since the workers were started at `start`, which all of them agree on."""

    def __init__(self, run: Path, start: int, rank: int, world: int, *, on: bool) -> None:
        self.file: TextIO | None = None
        if on:
            folder = run / "audit"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{start:020d}-{rank}-{world}.jsonl"
            self.file = (folder / name).open("w", encoding="utf-8")

    def write(self, batch: Batch) -> None:
        """Add a step that is about to be done."""
        if self.file is not None:
            facts = {
                "epoch": batch.epoch,
                "step": batch.step,
                "rows": batch.rows.tolist(),
                "time": time.time(),
            }
            self.file.write(json.dumps(facts) + "\n")
            self.file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()


def steps(run: Path) -> dict[tuple[int, int], list[int]]:
    """The rows of each global step, by (epoch, step), as it was done last by all ranks."""
    logs = [(file.stem.split("-"), file) for file in sorted((run / "audit").glob("*.jsonl"))]
    starts: dict[str, int] = {}
    done: dict[tuple[int, int], dict[str, list[list[int]]]] = {}
    for (start, _, world), file in logs:
        starts[start] = int(world)
        for line in _whole_lines(file):
            place = (line["epoch"], line["step"])
            done.setdefault(place, {}).setdefault(start, []).append(line["rows"])
    return {
        place: sorted(row for rows in by_start[start] for row in rows)
        for place, by_start in sorted(done.items())
        for start in [max(s for s, parts in by_start.items() if len(parts) == starts[s])]
    }


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # else its writer was killed
            yield json.loads(line)
