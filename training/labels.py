"""What a mail is, as one integer: its label, or a bit for each of several.

Labels(("ham", "spam")).codes(column)            0, 1; -1 of what is none of them
Labels(("work", "urgent"), True).codes(column)   0 none, 1 work, 2 urgent, 3 both
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR: Final = "|"
"""Between the labels of one mail."""
MOST: Final = 31
"""Labels that a mail may have several of: the bits of an int32."""
THRESHOLD: Final = 0.5
"""The probability from which a mail has a label, where it may have several."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The names of all labels, and whether a mail has exactly one or any number of them."""

    names: tuple[str, ...]
    multi: bool = False

    def spelling(self, value: object) -> str:
        """The one spelling of a mail's label or labels, which a list or a text gives.

        Raises:
            ValueError: one is not a label.
        """
        parts = value if isinstance(value, list | tuple) else [value]
        found = ["" if part is None else str(part) for part in parts]
        if self.multi:
            cut = (name.strip() for part in found for name in part.split(SEPARATOR))
            found = [name for name in cut if name]
        elif len(found) != 1:
            raise ValueError(f"{len(found)} labels; for several set data.multi_label=true")
        if unknown := [name for name in found if name not in self.names]:
            raise ValueError(f"label {unknown[0][:80]!r} is not one of {', '.join(self.names)}")
        return SEPARATOR.join(name for name in self.names if name in found)

    def codes(self, column: pa.ChunkedArray) -> np.ndarray:
        """int32 [mails] of a column of spellings, -1 where one is null or unknown."""
        kinds = pc.unique(column)
        of_kind = pa.array([self._code(kind) for kind in kinds.to_pylist()], pa.int32())
        at = pc.index_in(column, kinds)
        codes: np.ndarray = of_kind.take(at.combine_chunks()).to_numpy()
        return codes

    def _code(self, spelled: str | None) -> int:
        try:
            found = None if spelled is None else self.spelling(spelled)
        except ValueError:
            found = None
        if found is None:
            return -1
        if not self.multi:
            return self.names.index(found)
        return sum(1 << self.names.index(name) for name in found.split(SEPARATOR) if name)

    def indicator(self, codes: np.ndarray) -> np.ndarray:
        """bool [mails, labels], whether a mail has the label."""
        every = np.arange(len(self.names))
        column = np.asarray(codes, np.int64)[:, None]
        has: np.ndarray = (column >> every & 1).astype(bool) if self.multi else column == every
        return has

    def truth(self, codes: np.ndarray) -> np.ndarray:
        """What metrics take: int64 [mails], or bool [mails, labels] where there may be several."""
        return self.indicator(codes) if self.multi else np.asarray(codes, np.int64)

    def guess(self, scores: np.ndarray) -> np.ndarray:
        """As `truth`, from the probabilities, float [mails, labels]."""
        return scores >= THRESHOLD if self.multi else scores.argmax(1)

    def spell(self, truth: np.ndarray) -> list[str]:
        """The spelling of each mail's label or labels, from `truth` or `guess`."""
        if self.multi:
            return [SEPARATOR.join(self.of(row)) for row in truth]
        return [self.names[index] for index in truth]

    def of(self, row: Iterable[Any]) -> list[str]:
        """The names where a row of an indicator is true."""
        return [name for name, has in zip(self.names, row, strict=True) if has]


def check(names: Sequence[str], multi: bool) -> None:
    """Refuse names that could not be told apart.

    Raises:
        ValueError: with the reason.
    """
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"data.labels must be at least two different names, got {list(names)}")
    if not multi:
        return
    if len(names) > MOST:
        raise ValueError(f"data.labels: at most {MOST} with data.multi_label, got {len(names)}")
    if odd := [name for name in names if SEPARATOR in name or name != name.strip() or not name]:
        raise ValueError(
            f"data.labels: with data.multi_label no name may be empty, have spaces around it or "
            f"contain {SEPARATOR}, got {odd[0]!r}"
        )
