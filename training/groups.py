"""Groups: mails that must stand on the same side of a split, because one gives the other away.

Near-duplicates, the mails of one thread, and the campaigns of one sender are tied together, and
whatever is tied to the same mail is one group.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from training.likeness import HASHES, pairs


@dataclass(frozen=True, slots=True)
class Groups:
    """Which mails belong together."""

    of: np.ndarray
    """int32 [mails], the group of each mail, numbered from 0"""
    alike: int
    """Mails that are near-duplicates of another."""
    threads: int
    """Mails that share a thread with another."""
    campaigns: int
    """Mails that share sender and subject with another."""

    @property
    def count(self) -> int:
        """How many groups there are, single mails included."""
        return int(self.of.max(initial=-1)) + 1

    @property
    def tied(self) -> int:
        """Mails that are in a group with another."""
        sizes = np.bincount(self.of, minlength=1)
        return int(sizes[sizes > 1].sum())


def group(table: pa.Table) -> Groups:
    """The groups of a token table's rows; memory is a few numbers a mail."""
    forest = Forest(table.num_rows)
    signature = matrix(table)
    alike = np.zeros(table.num_rows, bool)
    for one, two in pairs(signature):
        forest.tie(one, two)
        alike[one] = alike[two] = True
    shared = {}
    for name in ("thread", "campaign"):
        keys = table[name].to_numpy()
        order = np.argsort(keys, kind="stable")
        # 0 stands for a mail that has none, which ties it to nobody.
        at = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]) & (keys[order[1:]] != 0)) + 1
        forest.tie(order[at], order[at - 1])
        shared[name] = len(np.union1d(order[at], order[at - 1]))
    return Groups(forest.labels(), int(alike.sum()), shared["thread"], shared["campaign"])


def matrix(table: pa.Table) -> np.ndarray:
    """The signatures of a token table, uint32 [mails, HASHES]."""
    chunks = [chunk.flatten().to_numpy() for chunk in table["signature"].chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([*chunks, np.zeros(0, np.uint32)])
    return flat.reshape(-1, HASHES)


class Forest:
    """Sets of mails that grow together as ties become known."""

    def __init__(self, mails: int) -> None:
        self._of = np.arange(mails, dtype=np.int32)

    def tie(self, one: np.ndarray, two: np.ndarray) -> None:
        """Each mail of `one` with the mail of `two` at the same place."""
        if not len(one):
            return
        size = len(self._of)
        ties = coo_matrix(
            (np.ones(len(one), bool), (self._of[one], self._of[two])), shape=(size, size)
        )
        _, merged = connected_components(ties, directed=False)
        self._of = merged[self._of]

    def labels(self) -> np.ndarray:
        """The set of each mail, int32 [mails], numbered in the order of their first mails."""
        _, first, inverse = np.unique(self._of, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int32)
        rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
        result: np.ndarray = rank[inverse]
        return result
