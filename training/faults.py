"""What stops a run for good, said so that a person can mend it."""

import json
import uuid
from pathlib import Path
from typing import Final

import pyarrow as pa

from training.batches import Batch
from training.tokens import column

NOT_FINITE: Final = "not_finite.json"


class OutOfMemory(RuntimeError):
    """A forward and backward pass did not fit."""


def other_plan(run: Path) -> str:
    """The checkpoints belong to another order of other mails."""
    return (
        f"the mails or their splits have changed since {run.name} was started, so its place in "
        "them is lost; start a new run"
    )


def not_finite(run: Path, tokens: Path, batch: Batch, rows: list[int]) -> str:
    """The loss or the gradient is no number; the mails that did it go to a file."""
    ids = column(tokens, "id").take(pa.array(rows)).to_pylist()
    file = run / NOT_FINITE
    facts = {"epoch": batch.epoch, "step": batch.step, "ids": ids}
    scratch = file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")  # each rank writes it
    scratch.write_text(json.dumps(facts, indent=2), "utf-8")
    scratch.replace(file)
    return (
        f"loss or gradient was not finite in epoch {batch.epoch + 1}, step {batch.step + 1}, on "
        f"{len(ids)} mail{'s' * (len(ids) > 1)}, listed in {file}; lower optimizer.lr, or try "
        "scaling.precision=fp32"
    )


def out_of_memory(tokens: int, largest: int) -> OutOfMemory:
    """What would fit: the largest that did, or half of what did not."""
    fits = largest if 0 < largest < tokens else tokens // 2
    return OutOfMemory(
        f"{tokens:,} tokens in one forward pass are too many for the device's memory; "
        f"batching.micro_tokens={fits} would fit and gives the same training"
    )
