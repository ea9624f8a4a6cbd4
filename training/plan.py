"""The batch plan is the dataset: which mails stand in which global step, and each rank's stream.

The order is a pure function of seed, epoch and lengths. Mails are permuted and cut into windows,
each window is sorted by length and cut into global batches, and those are permuted. A rank takes
its slice of every global batch, so the mails of a step do not depend on how many workers there
are. The plan's rows are a Ray Data dataset, mapped to batches that read the memory-mapped tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data

from training.tokens import read_part

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
    """int32 [all rows of the cache], index into the config's labels"""


def epoch_plan(
    rows: np.ndarray, lengths: np.ndarray, size: int, window: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """The global batches of an epoch: every row exactly once, the last batch may be smaller."""
    chance = np.random.default_rng([seed, epoch])
    order = chance.permutation(rows)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), size * window):
        chunk = order[start : start + size * window]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[first : first + size] for first in range(0, len(chunk), size)]
    return [batches[i] for i in chance.permutation(len(batches))]


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
    """A rank's batches of an evaluation: every row once over all ranks, hardly any padding."""
    mine = rows[np.argsort(lengths[rows], kind="stable")][rank::world]
    batches: list[np.ndarray] = []
    start = 0
    for end in range(1, len(mine) + 1):
        if end == len(mine) or lengths[mine[end]] * (end + 1 - start) > EVALUATION_TOKENS:
            batches.append(mine[start:end])
            start = end
    return batches


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads, from first epoch to last."""

    rows: Rows
    size: int
    window: int
    seed: int
    epochs: int

    @property
    def steps(self) -> int:
        """Global steps of one epoch."""
        full, rest = divmod(len(self.rows.train), self.size * self.window)
        return full * self.window + -(-rest // self.size)

    def rows_of(
        self, tokens: Path, rank: int, world: int, epoch: int, step: int
    ) -> Iterator[dict[str, Any]]:
        """A rank's rows from a place in the plan to its end; after each epoch, those that validate.

        A row is one slice of a global batch: epoch, step, size, rows, labels, lengths, and the
        mails' tokens end to end. One Ray Data job feeds the whole run, so no epoch waits for its
        first batch.
        """
        blocks = _blocks(self._walk(rank, world, epoch, step), self.rows.labels)
        if not blocks:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        dataset = ray.data.from_arrow(blocks).map_batches(
            Collate,
            fn_constructor_args=(str(tokens),),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=0.25,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        yield from dataset.iter_rows()

    def _walk(
        self, rank: int, world: int, epoch: int, step: int
    ) -> Iterator[tuple[int, int, int, np.ndarray]]:
        lengths = self.rows.lengths
        for at in range(epoch, self.epochs):
            batches = epoch_plan(self.rows.train, lengths, self.size, self.window, self.seed, at)
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


class Collate:
    """Adds the tokens of the planned mails, flat, with the length of each."""

    def __init__(self, tokens: str) -> None:
        parts = [read_part(file) for file in sorted(Path(tokens).glob("part-*.arrow"))]
        self.tokens = pa.chunked_array([chunk for part in parts for chunk in part["tokens"].chunks])

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
