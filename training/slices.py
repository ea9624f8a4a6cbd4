"""Slices: an evaluation by kinds of mail, the worst first.

    table = details(config.data, home, scored.ids, stages)
    for row in slices(scored, table, bundle.points):
        print(row["by"], row["slice"], row["mails"], row["accuracy"], row["intervals"]["accuracy"])

The worst slice is the one that is bad beyond doubt: with the most errors at the lower end of their
95% interval. So one mail that went wrong never stands above fifty of three hundred. Slices of less
than SMALL mails say little; they are marked and stand after the others.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from training.details import COLUMNS, details
from training.evaluation import Scored
from training.intervals import proportion
from training.operating import OperatingPoint, told

__all__ = ["SMALL", "details", "slices"]

SMALL: Final = 20
"""Mails below which a slice is marked as small."""
MOST: Final = 50
"""Slices of one detail at most; the rarest are one slice together."""


def slices(
    scored: Scored, table: pa.Table, points: Sequence[OperatingPoint] = ()
) -> list[dict[str, Any]]:
    """The figures of each slice as plain values, from the details of `scored`'s mails in its order.

    `by` is the detail, `slice` its value. Of two labels, one of which a mail has, there are also
    recall and false-positive rate, and with `points` what each of them did; a rate of no mails is
    NaN. A detail that all mails share makes no slices.
    """
    rows = []
    for by in COLUMNS:
        names, of = _coded(table[by])
        for code, name in enumerate(names if len(names) > 1 else ()):
            here = np.flatnonzero(of == code)
            part = replace(
                scored, ids=[scored.ids[row] for row in here], truth=scored.truth[here],
                scores=scored.scores[here],
            )  # fmt: skip
            rows.append({"by": by, "slice": name} | _figures(part, points))
    return sorted(rows, key=_badness)


def _figures(part: Scored, points: Sequence[OperatingPoint]) -> dict[str, Any]:
    labels, mails = part.labels, len(part.ids)
    guess = labels.guess(part.scores)
    right = int(((guess == part.truth).all(1) if labels.multi else guess == part.truth).sum())
    row: dict[str, Any] = {"mails": mails, "small": mails < SMALL, "wrong": mails - right}
    hits = {"accuracy": (right, mails)}
    if len(labels.names) == 2 and not labels.multi:
        yes, taken = part.truth == 1, guess == 1
        row |= {"no": int((~yes).sum()), "yes": int(yes.sum())}
        hits["recall"] = int((yes & taken).sum()), row["yes"]
        hits["false_positive_rate"] = int((~yes & taken).sum()), row["no"]
        if points:
            row["points"] = told(points, part.positive)
    row |= {key: hit / of if of else math.nan for key, (hit, of) in hits.items()}
    return row | {"intervals": {key: proportion(*counts) for key, counts in hits.items()}}


def _badness(row: dict[str, Any]) -> tuple[Any, ...]:
    """What rises from the worst slice to the best."""
    _, best = row["intervals"]["accuracy"]
    return row["small"], best, row["accuracy"], -row["mails"], row["by"], row["slice"]


def _coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The values of a detail, the most frequent first, and which of them each mail has, int."""
    encoded = column.combine_chunks().dictionary_encode()
    values, of = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    counts = np.bincount(of, minlength=len(values))
    order = sorted(range(len(values)), key=lambda code: (-counts[code], values[code]))
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values))
    names = [values[code] for code in order]
    if len(names) > MOST:
        names = [*names[: MOST - 1], f"{len(names) - MOST + 1:,} others"]
    return names, np.minimum(place, MOST - 1)[of]
