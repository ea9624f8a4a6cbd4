"""Batches: a rank's rows of the plan as tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.plan import Plan
from training.scorer import pad


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's slice of one global batch."""

    epoch: int
    step: int
    """Within the epoch; VALIDATE outside training."""
    size: int
    """Mails of the global batch."""
    rows: np.ndarray
    """int64 [mails], rows of the token cache; empty where the slice is"""
    ids: torch.Tensor
    """int64 [mails, longest]; of an empty slice one mail that must weigh nothing"""
    mask: torch.Tensor | None
    labels: torch.Tensor
    """int64 [mails]"""


def stream(
    plan: Plan, tokens: Path, filler: int, rank: int, world: int, epoch: int, step: int
) -> Iterator[Batch]:
    """A rank's batches, as `Plan.rows_of` gives them."""
    for row in plan.rows_of(tokens, rank, world, epoch, step):
        yield _batch(row, filler)


def _batch(row: dict[str, Any], filler: int) -> Batch:
    flat = np.asarray(row["tokens"], np.int64)
    lengths = np.asarray(row["lengths"], np.int64)
    mails: list[np.ndarray] = (
        np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else [np.zeros(2, np.int64)]
    )
    ids, mask = pad(mails, filler)
    labels = torch.as_tensor(np.asarray(row["labels"], np.int64))
    return Batch(
        epoch=int(row["epoch"]),
        step=int(row["step"]),
        size=int(row["size"]),
        rows=np.asarray(row["rows"], np.int64),
        ids=ids,
        mask=mask,
        labels=labels if len(lengths) else torch.zeros(1, dtype=torch.int64),
    )
