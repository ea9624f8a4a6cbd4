"""Quality checks: what is odd about a source's mails, in one table; none of it stops a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.groups import Groups
from training.tokens import UNREADABLE

_SHOWN: Final = 3
_EMPTY: Final = 12
"""Tokens of a text that has hardly more than the names of its fields."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of oddity."""

    what: str
    count: int
    examples: tuple[str, ...]
    """Ids of some of the mails, or where they are listed."""

    @property
    def shown(self) -> str:
        """The examples as the end of a line."""
        return f" ({', '.join(self.examples)})" if self.examples else ""


def examine(
    table: pa.Table, lengths: np.ndarray, labels: np.ndarray, groups: Groups, folder: Path
) -> list[Finding]:
    """The findings on a token table, without those of which there are none."""
    ids = table["id"]
    readable = lengths > 0
    findings = [
        Finding("unreadable mails", int((~readable).sum()), (str(folder / UNREADABLE),)),
        _finding("labels in unknown spellings", np.flatnonzero(readable & (labels < 0)), ids),
        _finding("mails with hardly a word", np.flatnonzero(readable & (lengths <= _EMPTY)), ids),
        _duplicated(ids),
        _finding("mails grouped with one of another label", contradictory(groups.of, labels), ids),
    ]
    kinds = np.unique(labels[readable & (labels >= 0)])
    if len(kinds) == 1:
        findings.append(Finding("mails of one label alone", int(readable.sum()), ()))
    return [finding for finding in findings if finding.count]


def contradictory(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows whose group has more than one label, int64."""
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        return known
    low = np.full(int(groups.max()) + 1, np.iinfo(np.int32).max)
    high = np.full(len(low), -1)
    np.minimum.at(low, groups[known], labels[known])
    np.maximum.at(high, groups[known], labels[known])
    rows: np.ndarray = known[(low < high)[groups[known]]]
    return rows


def _duplicated(ids: pa.ChunkedArray) -> Finding:
    counts = pc.value_counts(ids.combine_chunks())
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    names: Sequence[str] = twice.field("values").slice(0, _SHOWN).to_pylist()
    return Finding("ids that stand for several mails", len(twice), tuple(names))


def _finding(what: str, rows: np.ndarray, ids: pa.ChunkedArray) -> Finding:
    return Finding(what, len(rows), tuple(ids.take(pa.array(rows[:_SHOWN])).to_pylist()))
