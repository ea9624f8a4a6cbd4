"""The plots of a study's report, each an SVG that needs nothing else."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from training.drawing import BLUE, GREY, RED, drawn, svg
from tuning.answers import Point
from tuning.config import StudyConfig
from tuning.ledger import Ledger
from tuning.trial import Trial


def so_far(study: StudyConfig, trials: Sequence[Trial]) -> Markup:
    """The best value of any trial that came to its end, over the epochs that all trials took."""

    def draw(axes: Any) -> None:
        pick = min if study.directions[study.metric] == "minimize" else max
        spent, best, rows = 0, math.nan, []
        for trial in trials:
            spent += len(trial.epochs)
            value = trial.value(study.metric)
            if value is None or trial.state not in ("done", "stopped", "paused"):
                continue
            stopped = trial.state != "done"
            axes.plot(spent, value, "o", color=GREY if stopped else BLUE)
            if not stopped:
                best = value if math.isnan(best) else pick(best, value)
            rows.append((spent, best))
        if rows:
            axes.step(*zip(*rows, strict=True), where="post", color=RED)
        axes.set(xlabel="epochs of all trials (grey: stopped or paused)", ylabel=study.metric)

    return drawn(draw, f"the best {study.metric} so far against the epochs of all trials")


def curves(study: StudyConfig, trials: Sequence[Trial]) -> Markup:
    """The objective of each trial, epoch by epoch."""

    def draw(axes: Any) -> None:
        for trial in trials:
            values = [facts.get(study.metric, math.nan) for facts in trial.epochs.values()]
            color = GREY if trial.state != "done" else None
            axes.plot(list(trial.epochs), values, ".-", lw=1, color=color, alpha=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch (grey: stopped, paused or failed)", ylabel=study.metric)

    return drawn(draw, f"{study.metric} of each trial, epoch by epoch")


def pareto(study: StudyConfig, ranked: Sequence[Point]) -> Markup:
    """Two objectives of each point that came to its end, with its number."""
    across, up, *_ = study.directions

    def draw(axes: Any) -> None:
        for point in (point for point in ranked if point.done):
            place = (point.values[across], point.values[up])
            axes.plot(*place, "o", color=BLUE)
            axes.annotate(str(point.number), place, xytext=(4, 4), textcoords="offset points")
        axes.set(xlabel=across, ylabel=up)

    return drawn(draw, f"{up} against {across} of each point")


def bars(importance: dict[str, float]) -> Markup:
    """What share of the objective each key decides."""

    def draw(axes: Any) -> None:
        names = list(importance)[::-1]
        axes.barh(names, [importance[name] for name in names], color=BLUE)
        axes.set(xlabel="share of the objective's variance", xlim=(0, 1))

    return drawn(draw, "share of each key", height=0.8 + 0.4 * len(importance))


def parallel(study: StudyConfig, ranked: Sequence[Point], keys: Sequence[str]) -> Markup:
    """A line for each point through its settings and its value, the better the darker."""
    done = [point for point in ranked if point.done]
    columns = {key: [point.settings[key] for point in done] for key in keys}
    columns[study.metric] = [point.values[study.metric] for point in done]

    def draw(axes: Any) -> None:
        heights = np.array([_heights(values) for values in columns.values()])
        for at, line in reversed(list(enumerate(heights.T))):
            shade = 0.85 * (1 - at / max(len(done), 1)) + 0.15
            axes.plot(range(len(columns)), line, color=BLUE, alpha=shade, lw=2 if at == 0 else 1)
        for at, values in enumerate(columns.values()):
            axes.axvline(at, color="#444444", lw=0.8)
            marks = dict(zip(map(_mark, values), heights[at], strict=True))
            shown = marks if len(marks) <= 6 else {
                key: marks[key] for key in (min(marks, key=marks.__getitem__),
                                            max(marks, key=marks.__getitem__))
            }  # fmt: skip
            for text, height in shown.items():
                axes.annotate(text, (at, height), xytext=(5, 0), textcoords="offset points",
                              va="center", fontsize=9)  # fmt: skip
        axes.set_xticks(range(len(columns)), list(columns))
        axes.set_yticks([])
        axes.set_xlim(-0.2, len(columns) - 0.6)
        axes.spines[:].set_visible(False)

    return drawn(draw, f"{', '.join(keys)} and {study.metric} of each point", height=4.2)


def contour(ledger: Ledger, keys: Sequence[str]) -> Markup:
    """The objective over two keys, by Optuna."""
    from optuna.visualization.matplotlib import plot_contour

    several = len(ledger.config.directions) > 1
    target = (lambda trial: trial.values[0]) if several else None

    def made() -> Any:
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return plot_contour(
            ledger.study, params=list(keys), target=target, target_name=ledger.config.metric
        )

    return svg(made, f"{ledger.config.metric} over {keys[0]} and {keys[1]}")


def _heights(values: Sequence[Any]) -> np.ndarray:
    """Where values stand on an axis from 0 to 1; numbers that are far apart by their logarithm."""
    if not all(isinstance(value, int | float) for value in values):
        order = sorted(set(map(str, values)))
        return np.array([order.index(str(value)) for value in values]) / max(len(order) - 1, 1)
    numbers = np.array(values, float)
    if numbers.min() > 0 and numbers.max() / numbers.min() > 10:
        numbers = np.log(numbers)
    width = np.ptp(numbers)
    return (numbers - numbers.min()) / width if width else np.full(len(numbers), 0.5)


def _mark(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
