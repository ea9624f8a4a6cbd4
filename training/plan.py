"""The batch plan is the dataset: which mails stand in which global step, and each rank's stream.

The order is a pure function of seed, epoch and lengths. Mails are permuted and cut into windows,
each window is sorted by length and cut into global batches, and those are permuted. A rank takes
its slice of every global batch, so the mails of a step do not depend on how many workers there
are. The plan's rows are a Ray Data dataset, mapped to batches that read the memory-mapped tokens.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data

from training.tokens import column

EVALUATION_TOKENS: Final = 8_192
_BLOCK_STEPS: Final = 16
"""Steps of one Ray Data block: a task's work, and how soon the first batch comes."""

VALIDATE: Final = -1
"""The step number of the batches that validate an epoch."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The mails that a run reads, as rows of its token cache."""

    train: np.ndarray
    """int64 [mails]"""
    validation: np.ndarray
    lengths: np.ndarray
    """int32 [all rows of the cache], tokens of each mail"""
    labels: np.ndarray
    """int32 [all rows of the cache], codes of `training.labels`"""


def epoch_plan(
    rows: np.ndarray,
    lengths: np.ndarray,
    size: int,
    window: int,
    seed: int,
    epoch: int,
    tokens: int | None = None,
) -> list[np.ndarray]:
    """The global batches of an epoch: every row exactly once.

    Batches have `size` mails, or as many as `tokens` have room for, padding included; the last one
    of a window may be smaller.
    """
    chance = np.random.default_rng([seed, epoch])
    order = chance.permutation(rows)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), size * window):
        chunk = order[start : start + size * window]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        if tokens is None:
            batches += [chunk[first : first + size] for first in range(0, len(chunk), size)]
        else:
            batches += cut(chunk, lengths, tokens)
    return [batches[i] for i in chance.permutation(len(batches))]


def cut(rows: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Rows of rising lengths in parts of at most `tokens`, padding included, but never of none."""
    parts: list[np.ndarray] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or lengths[rows[end]] * (end + 1 - start) > tokens:
            parts.append(rows[start:end])
            start = end
    return parts


def share(batch: np.ndarray, lengths: np.ndarray, rank: int, world: int) -> np.ndarray:
    """A rank's slice of a global batch: sizes differ by one at most, tokens hardly.

    The mails are dealt longest first, the direction turning with every round.
    """
    order = batch[np.argsort(-lengths[batch], kind="stable")]
    at = np.arange(len(order))
    place = at % world
    mine: np.ndarray = order[np.where(at // world % 2 == 0, place, world - 1 - place) == rank]
    return mine


def evaluation_plan(
    rows: np.ndarray, lengths: np.ndarray, rank: int, world: int
) -> list[np.ndarray]:
    """A rank's batches of an evaluation: every row once over all ranks, hardly any padding.

    A rank for which there is no row has an empty batch: the others would wait for it for ever.
    """
    mine = rows[np.argsort(lengths[rows], kind="stable")][rank::world]
    return cut(mine, lengths, EVALUATION_TOKENS) or [mine]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads, from first epoch to last."""

    rows: Rows
    size: int
    window: int
    seed: int
    epochs: int
    tokens: int | None = None
    """Of a global batch, padding included, instead of `size` mails."""

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of an epoch."""
        return epoch_plan(
            self.rows.train,
            self.rows.lengths,
            self.size,
            self.window,
            self.seed,
            epoch,
            self.tokens,
        )

    def steps(self) -> list[int]:
        """Global steps of each epoch."""
        if self.tokens is not None:
            return [len(self.epoch(epoch)) for epoch in range(self.epochs)]
        full, rest = divmod(len(self.rows.train), self.size * self.window)
        return [full * self.window + -(-rest // self.size)] * self.epochs

    @property
    def fingerprint(self) -> str:
        """Of all that decides which mails stand where: a place in one plan is none in another."""
        digest = hashlib.sha256(repr((self.size, self.window, self.seed, self.tokens)).encode())
        rows = self.rows
        for facts in (rows.train, rows.lengths[rows.train], rows.labels[rows.train]):
            digest.update(np.ascontiguousarray(facts).tobytes())
        return digest.hexdigest()[:16]

    def rows_of(
        self, tokens: Path, rank: int, world: int, epoch: int, step: int, *, here: bool = False
    ) -> Iterator[dict[str, Any]]:
        """A rank's rows from a place in the plan to its end; after each epoch, those that validate.

        A row is one slice of a global batch: epoch, step, size, rows, labels, lengths, and the
        mails' tokens end to end. One Ray Data job feeds the whole run, so no epoch waits for its
        first batch. It asks for no CPU of its own, and so can never wait for one that the training
        workers hold: for the same reason its blocks are made here, not by tasks of `from_arrow`.
        With `here` this process reads them itself, which starts at once and serves one rank.
        """
        blocks = _blocks(self._walk(rank, world, epoch, step), self.rows.labels)
        if not blocks:
            return
        if here:
            collate = Collate(str(tokens))
            for block in blocks:
                yield from _rows(collate(block))
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        dataset = ray.data.from_blocks(blocks).map_batches(
            Collate,
            fn_constructor_args=(str(tokens),),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=0,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        yield from dataset.iter_rows()

    def _walk(
        self, rank: int, world: int, epoch: int, step: int
    ) -> Iterator[tuple[int, int, int, np.ndarray]]:
        lengths = self.rows.lengths
        for at in range(epoch, self.epochs):
            batches = self.epoch(at)
            for number in range(step if at == epoch else 0, len(batches)):
                batch = batches[number]
                yield at, number, len(batch), share(batch, lengths, rank, world)
            for batch in evaluation_plan(self.rows.validation, lengths, rank, world):
                yield at, VALIDATE, len(batch), batch


def _blocks(walk: Iterator[tuple[int, int, int, np.ndarray]], labels: np.ndarray) -> list[pa.Table]:
    steps = list(walk)
    tables = []
    for start in range(0, len(steps), _BLOCK_STEPS):
        epochs, numbers, sizes, rows = zip(*steps[start : start + _BLOCK_STEPS], strict=True)
        columns = {
            "epoch": pa.array(epochs, pa.int32()),
            "step": pa.array(numbers, pa.int32()),
            "size": pa.array(sizes, pa.int32()),
            "rows": pa.array([r.tolist() for r in rows], pa.list_(pa.int64())),
            "labels": pa.array([labels[r].tolist() for r in rows], pa.list_(pa.int32())),
        }
        tables.append(pa.table(columns))
    return tables


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """A table's rows, lists as arrays."""
    for at in range(table.num_rows):
        cells = {name: table[name][at] for name in table.column_names}
        yield {
            name: cell.values.to_numpy() if isinstance(cell, pa.ListScalar) else cell.as_py()
            for name, cell in cells.items()
        }


class Collate:
    """Adds the tokens of the planned mails, flat, with the length of each."""

    def __init__(self, tokens: str) -> None:
        self.tokens = column(Path(tokens), "tokens")

    def __call__(self, plan: pa.Table) -> pa.Table:
        lists = plan["rows"].combine_chunks()
        flat = lists.flatten()
        if len(flat) == 0:
            tokens = pa.array([], pa.list_(pa.int32()))
        else:
            tokens = pa.chunked_array(self.tokens.take(flat)).combine_chunks()
        lengths = np.diff(tokens.offsets.to_numpy()).astype(np.int32)
        bounds = lists.offsets.to_numpy() - lists.offsets[0].as_py()
        ends = tokens.offsets.to_numpy()[bounds].astype(np.int32)
        return plan.append_column(
            "lengths", pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(lengths))
        ).append_column(
            "tokens", pa.ListArray.from_arrays(pa.array(ends - ends[0]), tokens.flatten())
        )
