"""Splits: which mail trains, which chooses the checkpoint, which tests. A pure function."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def assign(
    ids: Sequence[str], strata: Sequence[str], *, validation: float, test: float, seed: int
) -> np.ndarray:
    """The split of each mail, int8 [mails], an index into SPLITS.

    Each stratum is cut in the given shares, to the mail; within it, a hash of seed and id says
    who goes where, so the order of the mails does not matter.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        members[stratum].append(row)
    split = np.zeros(len(ids), np.int8)
    for rows in members.values():
        rows.sort(key=lambda row: hashlib.sha256(f"{seed}\0{ids[row]}".encode()).digest())
        tested = round(len(rows) * test)
        validated = round(len(rows) * validation)
        split[rows[:tested]] = SPLITS.index("test")
        split[rows[tested : tested + validated]] = SPLITS.index("validation")
    return split
