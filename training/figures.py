"""The plots of a model's report, each an SVG that needs nothing else, drawn for a phone's width.

A curve of 100,000 mails keeps a few hundred points; a mail is in no plot by itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from training.curve import Curve
from training.drawing import BLUE, COLOURS, GREY, RED, drawn, svg, thinned
from training.intervals import CONFIDENCE, proportion

Points = Sequence[Mapping[str, Any]]
"""Rows of `training.operating.told`."""
WIDTH, HEIGHT = 4.8, 3.7
"""Inches: at a phone's 330 pixels the letters are still of nine."""
_STYLES: Final = ("-", "--", ":", "-.")
_MARKS: Final = "os^Dv"
_DRAWN: Final = 10_000_000
"""Counts that a band is drawn from at most."""
_PERCENT: Final = FuncFormatter(lambda value, _: f"{100 * value:.3g}%")
_BINS: Final = 50


def learning(epochs: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> Markup:
    """Figures of each epoch by their names; the best epoch is marked."""

    def draw(axes: Any) -> None:
        at = [row["epoch"] for row in epochs]
        for number, (key, name) in enumerate(keys.items()):
            values = [math.nan if row.get(key) is None else row[key] for row in epochs]
            axes.plot(
                at, values, f"{_MARKS[number]}-", color=COLOURS[number], ms=4, label=_cut(name)
            )
        for row in epochs:
            if row.get("best"):
                axes.axvline(row["epoch"], color=GREY, lw=1, ls="--", label="best epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch")
        _legend(axes)

    return _small(draw, f"learning curves: {', '.join(keys.values())} of each epoch")


def roc(curves: Mapping[str, Curve], points: Points, *, band: bool) -> Markup:
    """Recall against the false-positive rate, which has a logarithmic axis.

    The left edge stands for none. With `band` the first curve has its pointwise bootstrap band;
    `points` are rows of `training.operating.told`. Curves must have mails of both sides.
    """
    fewest = max(int(curve.no.sum()) for curve in curves.values())
    low = min(max(10.0 ** math.floor(-math.log10(fewest)), 1e-5), 1e-2)
    grid = np.geomspace(low, 1, 200)

    def draw(axes: Any) -> None:
        least = 1.0
        for number, (name, curve) in enumerate(curves.items()):
            false, true, _ = curve.roc
            least = min(least, float(np.interp(low, false, true)))
            axes.plot(*_logarithmic(false, true, grid), **_line(number), label=_cut(name))
        if band:
            first = next(iter(curves.values()))
            axes.fill_between(grid, *_band(first, grid), color=BLUE, alpha=0.15, lw=0)
        for number, row in enumerate(row for row in points if row["threshold"] is not None):
            place = max(row["false_positive_rate"], low), row["recall"]
            axes.plot(*place, _MARKS[number % 5], color="black", mfc="white", ms=6, clip_on=False,
                      label=f"point {row['name']}", zorder=5)  # fmt: skip
        axes.set(xscale="log", xlim=(low, 1), ylim=(math.floor(min(least, 0.9) * 10) / 10, 1.005),
                 xlabel="false-positive rate (logarithmic)", ylabel="recall")  # fmt: skip
        _percents(axes)
        _legend(axes)

    return _small(draw, f"ROC curve of {', '.join(curves)}")


def precision_recall(curves: Mapping[str, Curve]) -> Markup:
    """Precision against recall, as steps; each curve must have a mail with its label."""

    def draw(axes: Any) -> None:
        for number, (name, curve) in enumerate(curves.items()):
            yes, no = np.cumsum(curve.yes[::-1]), np.cumsum(curve.no[::-1])
            recall, precision = yes / yes[-1], yes / (yes + no)
            recall, precision = np.append(0, recall), np.append(precision[0], precision)
            line = thinned(recall, precision, recall)
            axes.plot(*line, **_line(number), drawstyle="steps-pre", label=_cut(name))
        axes.set(xlim=(0, 1.005), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
        _legend(axes)

    return _small(draw, f"precision against recall of {', '.join(curves)}")


def calibration(curve: Curve, label: str) -> Markup:
    """Share of mails that have the label against the probability said, and how many mails."""
    said, true, mails = curve.calibration(10)
    there = mails > 0
    hits = np.rint(true[there] * mails[there]).astype(int)
    pairs = zip(hits.tolist(), mails[there].astype(int).tolist(), strict=True)
    low, high = np.array([proportion(*pair) for pair in pairs]).T
    shown, said = true[there], said[there]

    def make() -> Any:
        figure = Figure(figsize=(WIDTH, HEIGHT + 0.5), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), color=GREY, lw=1, ls="--", label="honest")
        spread = np.maximum([shown - low, high - shown], 0)
        above.errorbar(said, shown, spread, fmt="o", color=BLUE, ms=4, lw=1, label="model")
        above.set(ylabel="share that has it", xlim=(0, 1), ylim=(-0.02, 1.02))
        _legend(above)
        below.stairs(np.maximum(mails, 0.5), np.linspace(0, 1, 11), baseline=0.5, fill=True,
                     color=BLUE)  # fmt: skip
        below.set(yscale="log", ylim=(0.5, None), xlabel=f"probability of {_cut(label)}",
                  ylabel="mails")  # fmt: skip
        _counts(below)
        return above

    alt = f"calibration: share of mails with {label} against the probability that was said"
    return svg(make, alt, {"text.parse_math": False})


def histogram(curve: Curve, label: str, other: str, points: Points) -> Markup:
    """How many mails with and without a label have which probability of it; logarithmic counts."""
    at = np.minimum((curve.scores.astype(np.float64) * _BINS).astype(int), _BINS - 1)
    edges = np.linspace(0, 1, _BINS + 1)

    def draw(axes: Any) -> None:
        sides = ((curve.no, BLUE, other), (curve.yes, RED, label))
        for counts, colour, name in sides:
            binned = np.maximum(np.bincount(at, counts, _BINS), 0.5)
            axes.stairs(binned, edges, baseline=0.5, fill=True, color=colour, alpha=0.35)
            axes.stairs(binned, edges, baseline=0.5, color=colour, label=_cut(name))
        kept = [row for row in points if row["threshold"] is not None]
        for number, row in enumerate(kept):
            axes.axvline(min(row["threshold"], 1), color="black", lw=1,
                         ls=_STYLES[(number + 1) % 4], label=f"point {row['name']}")  # fmt: skip
        axes.set(yscale="log", xlim=(0, 1), ylim=(0.5, None), ylabel="mails (logarithmic)",
                 xlabel=f"probability of {_cut(label)}")  # fmt: skip
        _counts(axes)
        _legend(axes)

    return _small(draw, f"histogram of the probabilities of {label}, by true label")


def bars(rows: Mapping[str, tuple[float, Sequence[float]]], what: str, *, percent: bool) -> Markup:
    """A figure and its 95% interval for each name, the first with a line down to the others."""
    named = {name: row for name, row in rows.items() if not math.isnan(row[0])}

    def draw(axes: Any) -> None:
        values = np.array([value for value, _ in named.values()])
        ends = np.array([interval for _, interval in named.values()])
        spread = np.maximum(np.stack([values - ends[:, 0], ends[:, 1] - values]), 0)
        heights = np.arange(len(named))[::-1]
        axes.axvline(values[0], color=GREY, lw=1, ls="--")
        axes.errorbar(
            values, heights, xerr=np.nan_to_num(spread), fmt="o", color=BLUE, ms=5, lw=1.5
        )
        axes.set_yticks(heights, [_cut(name) for name in named])
        axes.set(xlabel=what, ylim=(-0.6, len(named) - 0.4))
        axes.grid(axis="y", visible=False)
        if percent:
            axes.xaxis.set_major_formatter(_PERCENT)

    return _small(draw, f"{what} of {', '.join(named)}", 1.0 + 0.27 * len(named))


def _small(draw: Any, alt: str, height: float = HEIGHT) -> Markup:
    def gridded(axes: Any) -> None:
        axes.grid(color="#e6e6e6", lw=0.6)
        axes.set_axisbelow(True)
        draw(axes)

    return drawn(gridded, alt, width=WIDTH, height=height)


def _line(number: int) -> dict[str, Any]:
    style = _STYLES[number // len(COLOURS) % len(_STYLES)]
    return {"color": COLOURS[number % len(COLOURS)], "ls": style, "lw": 1.6 if number == 0 else 1.2}


def _logarithmic(
    false: np.ndarray, true: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A ROC curve for a logarithmic axis, on which its straight pieces are bent."""
    x = np.concatenate([false, grid])
    y = np.concatenate([true, np.interp(grid, false, true)])
    order = np.lexsort((y, x))
    x, y = np.maximum(x[order], grid[0]), np.maximum.accumulate(y[order])
    return thinned(x, y, 1 - np.log(x) / np.log(grid[0]))


def _band(curve: Curve, grid: np.ndarray) -> np.ndarray:
    """The lower and upper recall of resampled curves at each false-positive rate."""
    chance = np.random.default_rng(0)
    count = max(50, min(500, _DRAWN // len(curve.scores)))
    found = []
    for _ in range(count):
        false, true, _ = curve.resampled(chance).roc
        found.append(np.interp(grid, false, true))
    limits: np.ndarray = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return limits


def _percents(axes: Any) -> None:
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _counts(axes: Any) -> None:
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    many = len(names) > 8
    place: dict[str, Any] = {"loc": "best"}
    if many:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 3}
    axes.legend(handles, names, fontsize=7 if many else 8.5, framealpha=0.8, edgecolor="none",
                **place)  # fmt: skip


def _cut(name: str) -> str:
    one_line = " ".join(name.split())
    cut = one_line if len(one_line) <= 28 else f"{one_line[:27]}…"
    return f"\u200b{cut}" if cut.startswith("_") else cut  # which Matplotlib would not show
