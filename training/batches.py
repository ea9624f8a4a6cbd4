"""Batches: a rank's rows of the plan as tensors, made in a thread while the step before runs."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from training.plan import Plan, cut
from training.tensors import Reader
from training.wide import Grams

_AHEAD: Final = 4
"""Batches that are made before they are asked for."""


@dataclass(frozen=True, slots=True)
class Micro:
    """The mails of one forward."""

    rows: np.ndarray
    """int64 [mails], rows of the token cache; empty for a stand-in"""
    ids: torch.Tensor
    """int64 [mails, longest]; a stand-in's one mail must weigh nothing"""
    mask: torch.Tensor | None
    labels: torch.Tensor
    """int64 [mails], codes of `training.labels`"""
    real: int
    """Tokens that are not padding."""
    grams: Grams | None = None
    """What a wide part reads."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's slice of one global batch."""

    epoch: int
    step: int
    """Within the epoch; VALIDATE outside training."""
    size: int
    """Mails of the global batch."""
    parts: list[Micro]
    """At least one: an empty slice has a stand-in."""

    @property
    def rows(self) -> np.ndarray:
        """int64 [mails of the slice]"""
        return np.concatenate([part.rows for part in self.parts])


def stream(
    plan: Plan,
    tokens: Path,
    reader: Reader,
    rank: int,
    world: int,
    epoch: int,
    step: int,
    micro: int | None = None,
    *,
    pinned: bool = False,
    here: bool = False,
) -> Iterator[Batch]:
    """A rank's batches, as `Plan.rows_of` gives them, in parts of at most `micro` tokens."""
    rows = plan.rows_of(tokens, rank, world, epoch, step, here=here)
    yield from _ahead(_batch(row, reader, micro, pinned) for row in rows)


def _batch(row: dict[str, Any], reader: Reader, micro: int | None, pinned: bool) -> Batch:
    flat = np.asarray(row["tokens"], np.int64)
    lengths = np.asarray(row["lengths"], np.int64)
    rows = np.asarray(row["rows"], np.int64)
    labels = np.asarray(row["labels"], np.int64)
    mails = np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
    lengths = reader.lengths(lengths)
    order = np.argsort(lengths, kind="stable")
    parts = [order] if micro is None or not len(order) else cut(order, lengths, micro)
    made = [_micro([mails[i] for i in at], rows[at], labels[at], reader, pinned) for at in parts]
    return Batch(int(row["epoch"]), int(row["step"]), int(row["size"]), made)


def _micro(
    mails: list[np.ndarray], rows: np.ndarray, labels: np.ndarray, reader: Reader, pinned: bool
) -> Micro:
    stand_in = not mails
    ids, mask, grams = reader([np.zeros(2, np.int64)] if stand_in else mails)
    truth = torch.zeros(1, dtype=torch.int64) if stand_in else torch.from_numpy(labels)
    if pinned:
        ids, truth = ids.pin_memory(), truth.pin_memory()
        mask = None if mask is None else mask.pin_memory()
        grams = None if grams is None else Grams(*(part.pin_memory() for part in grams))
    real = sum(min(len(mail), reader.max_length) for mail in mails)
    return Micro(rows, ids, mask, truth, real, grams)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, made in a thread."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(_AHEAD)
    over = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=fill, daemon=True, name="batches").start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
