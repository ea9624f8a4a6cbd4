"""What a study answers: which settings to use, how sure that is, and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from tuning.config import Direction
from tuning.space import Settings
from tuning.trial import Trial

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the space: the trials that differ by their seed alone."""

    settings: Settings
    trials: tuple[Trial, ...]
    values: dict[str, float]
    """Of each objective the mean over the seeds that came to their end."""
    intervals: dict[str, tuple[float, float]]
    """95% of Student's t, where two seeds or more came to their end."""

    @property
    def number(self) -> int:
        """Of its first trial."""
        return self.trials[0].point

    @property
    def done(self) -> list[Trial]:
        """Trials that came to their end."""
        return [trial for trial in self.trials if trial.state == "done"]

    def told(self, metric: str) -> str:
        """An objective's value and its interval for people; empty where there is none."""
        if metric not in self.values:
            return ""
        if metric not in self.intervals:
            return f"{self.values[metric]:.4f}"
        low, high = self.intervals[metric]
        return f"{self.values[metric]:.4f} ({low:.4f} to {high:.4f})"

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "point": self.number,
            "settings": self.settings,
            "values": self.values,
            "intervals": self.intervals,
            "states": [trial.state for trial in self.trials],
            "epochs": sum(len(trial.epochs) for trial in self.trials),
            "seconds": sum(trial.seconds for trial in self.trials),
            "reasons": [trial.reason for trial in self.trials if trial.reason],
        }


def points(trials: Sequence[Trial], directions: dict[str, Direction]) -> list[Point]:
    """All points: those that came to their end first, best first by the first objective, then
    those with results, then those without.

    With several objectives the points of the Pareto front stand first.
    """
    of: dict[int, list[Trial]] = {}
    for trial in trials:
        of.setdefault(trial.point, []).append(trial)
    made = [_point(group, directions) for group in of.values()]
    metric, direction = next(iter(directions.items()))
    sign = 1 if direction == "minimize" else -1
    best = front(made, directions) if len(directions) > 1 else []

    def rank(point: Point) -> tuple[int, int, int, float]:
        lost = len(point.done) < len(point.trials)
        value = point.values.get(metric, _reached(point, metric))
        nothing = value is None or math.isnan(value)
        return (
            0 if point in best else 1,
            0 if point.done and not lost else 1 if point.done else 2,
            int(nothing),
            0.0 if nothing or value is None else sign * value,
        )

    return sorted(made, key=rank)


def front(made: Sequence[Point], directions: dict[str, Direction]) -> list[Point]:
    """The points that no other is better than in one objective and as good as in all others."""
    ended = [point for point in made if point.done]
    if not ended:
        return []
    signs = [1 if direction == "minimize" else -1 for direction in directions.values()]
    costs = np.array([[point.values[m] for m in directions] for point in ended]) * signs
    return [
        point
        for point, mine in zip(ended, costs, strict=True)
        if not ((costs <= mine).all(1) & (costs < mine).any(1)).any()
    ]


def winner(ranked: Sequence[Point], directions: dict[str, Direction]) -> Trial | None:
    """The trial whose weights are kept: of the best point its best seed; None if none ended."""
    metric, direction = next(iter(directions.items()))
    sign = 1 if direction == "minimize" else -1
    if not ranked or not ranked[0].done:
        return None

    def cost(trial: Trial) -> float:
        value = trial.value(metric)
        return math.inf if value is None else sign * value

    return min(ranked[0].done, key=cost)


def cost(trials: Sequence[Trial], full: int, cores: int, gpus: float) -> dict[str, float]:
    """Epochs and hours of a study, and what its early stopping spared.

    `full` is the epochs of a trial that nothing stops, `cores` and `gpus` what each trial has.
    """
    seconds = sum(trial.seconds for trial in trials)
    done = sum(len(trial.epochs) for trial in trials)
    spared = sum(
        full - len(trial.epochs) for trial in trials if trial.state in ("stopped", "paused")
    )
    return {
        "trials": len(trials),
        "epochs": done,
        "epochs_spared": spared,
        "spared": spared / (done + spared) if done + spared else 0.0,
        "core_hours": seconds * cores / 3600,
        "gpu_hours": seconds * gpus / 3600,
    }


def _point(group: Sequence[Trial], directions: dict[str, Direction]) -> Point:
    values, intervals = {}, {}
    for metric in directions:
        found = [v for t in group if t.state == "done" and (v := t.value(metric)) is not None]
        if not found:
            continue
        values[metric] = float(np.mean(found))
        if len(found) > 1:
            half = stats.sem(found) * stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1)
            intervals[metric] = (values[metric] - float(half), values[metric] + float(half))
    return Point(group[0].settings, tuple(group), values, intervals)


def _reached(point: Point, metric: str) -> float | None:
    """What a point came to before it was stopped."""
    reached = [v for trial in point.trials if (v := trial.value(metric)) is not None]
    return float(np.mean(reached)) if reached else None
