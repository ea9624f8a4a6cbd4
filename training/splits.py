"""Splits: which mail trains, which chooses the checkpoint, which tests; without leakage.

A group of mails (`training.groups`) is always on one side. Groups are dealt, in an order that a
hash of seed and id gives, so that each stratum comes near its share of each side. A mail that was
dealt once keeps its side for ever: the sides are kept in a ledger, and what is added later joins
the side of its group. A new mail that would tie two sides together is left out of both.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
TRAIN, VALIDATION, TEST = range(3)
LEFT_OUT: Final = -1
"""The side of a mail that is on none."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What decides a split, besides the mails."""

    validation: float
    test: float
    seed: int
    by: Literal["hash", "time"]
    """`time` tests on the latest mails and validates on those before."""


def assign(
    ids: Sequence[str],
    strata: Sequence[str],
    groups: np.ndarray,
    dates: np.ndarray,
    named: np.ndarray,
    shares: Shares,
    known: dict[str, int] | None = None,
) -> np.ndarray:
    """The side of each mail, int8 [mails]: an index into SPLITS, or LEFT_OUT.

    `groups` is int32 [mails]; `dates` int64 [mails], epoch seconds, 0 where there is none; `named`
    int8 [mails], the side that the data itself names, or LEFT_OUT; `known` the sides of mails that
    were dealt before. Named sides win over groups: a mail on the training side whose group is also
    tested on is left out, unless it was dealt before.
    """
    side = named.copy()
    for row, id_ in enumerate(ids):
        if known and (before := known.get(id_)) is not None:
            side[row] = before
    count = int(groups.max(initial=-1)) + 1
    has = np.zeros((count, len(SPLITS)), bool)
    fixed = np.flatnonzero(side != LEFT_OUT)
    has[groups[fixed], side[fixed]] = True
    sides = has.sum(1)
    torn = sides > 1
    _evict(side, named, known or {}, ids, groups, torn)
    joined = np.where(sides == 1, has.argmax(1), LEFT_OUT).astype(np.int8)
    open_rows = (side == LEFT_OUT) & (named == LEFT_OUT)
    side[open_rows] = joined[groups[open_rows]]
    free = open_rows & (sides == 0)[groups]
    if (named == LEFT_OUT).any():
        _deal(side, free, ids, strata, groups, dates, shares)
    return side


def _evict(
    side: np.ndarray,
    named: np.ndarray,
    known: dict[str, int],
    ids: Sequence[str],
    groups: np.ndarray,
    torn: np.ndarray,
) -> None:
    """Out of a torn group, the mails that the data names for training and nobody dealt before."""
    for row in np.flatnonzero(torn[groups] & (named == TRAIN)):
        if ids[int(row)] not in known:
            side[row] = LEFT_OUT


def _deal(
    side: np.ndarray,
    free: np.ndarray,
    ids: Sequence[str],
    strata: Sequence[str],
    groups: np.ndarray,
    dates: np.ndarray,
    shares: Shares,
) -> None:
    """Put every free group on a side; in place."""
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    total = np.bincount(stratum, minlength=len(names)).astype(float)
    want = np.stack([total * 0, total * shares.validation, total * shares.test], 1)
    have = np.zeros_like(want)
    dealt = side != LEFT_OUT
    np.add.at(have, (stratum[dealt], side[dealt]), 1)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(free):
        members.setdefault(int(groups[row]), []).append(int(row))
    for rows in sorted(members.values(), key=lambda rows: _rank(rows, ids, dates, shares)):
        mine = np.bincount(stratum[rows], minlength=len(names))
        chosen = TRAIN
        for candidate in (TEST, VALIDATION):
            # Half a mail of rounding; a group too large for what a side still wants, trains.
            if (have[:, candidate] + mine <= want[:, candidate] + 0.5)[mine > 0].all():
                chosen = candidate
                break
        have[:, chosen] += mine
        side[rows] = chosen


def _rank(
    rows: list[int], ids: Sequence[str], dates: np.ndarray, shares: Shares
) -> tuple[int, bytes]:
    """Where a group stands in the deal: its latest mail first, or by hash."""
    hashed = min(hashlib.sha256(f"{shares.seed}\0{ids[row]}".encode()).digest() for row in rows)
    return (-int(dates[rows].max()) if shares.by == "time" else 0, hashed)


class Ledger:
    """The sides that mails were dealt, kept in one Arrow file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> dict[str, int]:
        """Side by id; empty where nothing was dealt yet."""
        if not self.file.is_file():
            return {}
        table = pa.ipc.open_file(pa.memory_map(str(self.file))).read_all()
        return dict(zip(table["id"].to_pylist(), table["side"].to_pylist(), strict=True))

    def add(self, ids: Sequence[str], side: np.ndarray, known: dict[str, int]) -> None:
        """Keep what is new; the file is replaced as a whole."""
        new = {
            id_: int(s)
            for id_, s in zip(ids, side, strict=True)
            if s != LEFT_OUT and id_ not in known
        }
        if not new:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        whole = known | new
        table = pa.table(
            {"id": list(whole), "side": pa.array(whole.values(), pa.int8())},
        )
        scratch = self.file.with_name(f".{self.file.name}-{uuid.uuid4().hex[:8]}")
        with pa.ipc.new_file(str(scratch), table.schema) as writer:
            writer.write_table(table)
        scratch.replace(self.file)
