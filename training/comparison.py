"""Comparison: is this model really better than that one? From both models' scores of some mails.

mailray compare A B [--source S] [--split test] [--output changed.parquet]

Figures are compared by the paired bootstrap, verdicts by McNemar's exact test (McNemar 1947, in its
binomial form), and the mails on which one model alone is right are listed by id.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import stats

from training.evaluation import Scored
from training.resampling import Figures, resamples

CONFIDENCE: Final = 0.95
"""Of each interval by itself."""
DECISIVE: Final = {"accuracy": "accuracy", "roc_auc": "ROC AUC"}
"""What the answer is about: right verdicts, and the right order."""
_SMALLER_IS_BETTER: Final = ("loss", "brier", "false_positive_rate")
_CHANGED: Final = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("right", pa.string()),  # the model, A or B, that alone is
        ("predicted_a", pa.string()),
        ("predicted_b", pa.string()),
        ("p_a", pa.float32()),  # of the mail's label; of several, the mean over labels
        ("p_b", pa.float32()),
    ]
)


def compare(
    a: Scored, b: Scored, thresholds: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, Any]:
    """How much better the first is than the second, figure by figure, on the same mails.

    `figures` has a row each: both values, their difference, its 95% interval, p, and which is
    `better`, None where the mails show no difference. `mcnemar` is the two-by-two table of
    verdicts, `points` has both of each operating point, whose `thresholds` are those of the two
    models, and `changed` are the mails on which one model alone is right, the largest change of
    probability first.
    """
    points = thresholds or {}
    sides = [
        Figures(scored, {name: pair[at] for name, pair in points.items()})
        for at, scored in enumerate((a, b))
    ]
    # A mail with several labels belongs to no stratum that would have mails enough.
    strata = np.zeros(len(a.ids), np.int64) if a.labels.multi else a.truth
    drawn = [tuple(side.of(counts) for side in sides) for counts in resamples(strata)]
    here, there = (side.of(np.ones((1, len(a.ids)))) for side in sides)
    verdicts = mcnemar(sides[0].right, sides[1].right)
    rows = {}
    for key in here:
        differences = np.concatenate([one[key] - other[key] for one, other in drawn])
        p = verdicts["p"] if key == "accuracy" else None
        rows[key] = _row(key, float(here[key][0]), float(there[key][0]), differences, p)
    return {
        "mails": len(a.ids),
        "figures": [row for key, row in rows.items() if "/" not in key],
        "mcnemar": verdicts,
        "points": [
            {
                "name": name,
                "figures": [row for key, row in rows.items() if key.startswith(f"{name}/")],
                "mcnemar": mcnemar(*((side.above[name] > 0) == (a.truth == 1) for side in sides)),
            }
            for name in points
        ],
        "changed": _changed(a, b, sides[0].right, sides[1].right).to_pylist(),
    }


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Who is right how often, and the exact two-sided p of both being so equally often.

    `a` and `b` are bool [mails]; p is 1 where the models differ on none.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {
        "both_right": int((a & b).sum()), "only_a": only_a, "only_b": only_b,
        "both_wrong": int((~a & ~b).sum()), "p": p,
    }  # fmt: skip


def answer(values: dict[str, Any], a: str, b: str) -> str:
    """One sentence on whether model `a` is better than model `b`, from what `compare` gives.

    It is about accuracy and ROC AUC, each at half of 5%, so that of equal models it calls one
    better in a twentieth of all comparisons at most.
    """
    of = {row["figure"]: row for row in values["figures"]}
    won: dict[str, list[str]] = {"A": [], "B": []}
    for key, name in DECISIVE.items():
        row = of[key]
        if row["better"] and row["p"] <= (1 - CONFIDENCE) / len(DECISIVE):
            won[row["better"]].append(name)
    mails = f"{values['mails']:,} mails"
    if won["A"] and won["B"]:
        return f"Yes and no: on these {mails} {a} is better in {won['A'][0]}, {b} in {won['B'][0]}."
    if won["A"]:
        return f"Yes: on these {mails} {a} is better than {b} in {' and '.join(won['A'])}."
    if won["B"]:
        return f"No: on these {mails} {b} is better than {a} in {' and '.join(won['B'])}."
    told = " and ".join(
        f"{name} ({of[key]['difference']:+.4f}, p = {of[key]['p']:.2g})"
        for key, name in DECISIVE.items()
        if of[key]["p"] is not None
    )
    return f"Not shown: on these {mails} {a} and {b} differ by no more than chance in {told}."


def write_changed(rows: list[dict[str, Any]], file: Path) -> None:
    """The mails that changed sides as Parquet, a row each."""
    scratch = file.with_name(f".{file.name}.part")
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, _CHANGED), scratch)
    scratch.replace(file)


def _row(key: str, a: float, b: float, differences: np.ndarray, p: float | None) -> dict[str, Any]:
    """A figure of both models, and what the resamples say of the difference."""
    name = key.rpartition("/")[2]
    known = differences[~np.isnan(differences)]
    low = high = float("nan")
    if len(known) and not np.isnan(a - b):
        edges = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        low, high = (float(edge) for edge in np.quantile(known, edges))
        if p is None:
            tail = 1 + min(int((known <= 0).sum()), int((known >= 0).sum()))
            p = min(1.0, 2 * tail / (len(known) + 1))
    better = None
    # Of a few mails that changed sides the bootstrap makes too much: both must say so.
    if p is not None and p <= 1 - CONFIDENCE and (low > 0 or high < 0):
        better = "A" if (low > 0) != (name in _SMALLER_IS_BETTER) else "B"
    return {
        "figure": name, "a": a, "b": b, "difference": a - b, "interval": [low, high], "p": p,
        "better": better,
    }  # fmt: skip


def _changed(a: Scored, b: Scored, right_a: np.ndarray, right_b: np.ndarray) -> pa.Table:
    """The mails on which one model alone is right, as _CHANGED, the largest change first."""
    rows = np.flatnonzero(right_a != right_b)
    rows = rows[np.argsort(-np.abs(_of_truth(a) - _of_truth(b))[rows], kind="stable")]
    columns = {
        "id": [a.ids[row] for row in rows],
        "label": a.labels.spell(a.truth[rows]),
        "right": np.where(right_a[rows], "A", "B").tolist(),
        "predicted_a": a.labels.spell(a.labels.guess(a.scores[rows])),
        "predicted_b": a.labels.spell(a.labels.guess(b.scores[rows])),
        "p_a": _of_truth(a)[rows],
        "p_b": _of_truth(b)[rows],
    }
    return pa.table(columns, _CHANGED)


def _of_truth(scored: Scored) -> np.ndarray:
    """The probability that a model gives what is true, float32 [mails]."""
    if scored.labels.multi:
        return np.asarray(np.where(scored.truth, scored.scores, 1 - scored.scores).mean(1))
    return np.asarray(scored.scores[np.arange(len(scored.truth)), scored.truth])
