"""Asynchronous successive halving, the form that promotes: few epochs for many, all for few.

Every trial trains to the first rung and pauses there. One that is among the best 1 of `factor` of
its rung goes on, from its checkpoint, to the next, which is `factor` times as far; the last rung
is the end of training. (Li et al., 2020, algorithm 1.) It is delayed as in Hyper-Tune (Li et al.,
2022): a rung sends on 1 for each `factor` that reached it, so that the luck of the first to come
is worth no more than its share. A form that stops trials instead has to let the first one of each
rung pass, to the end of its training, whatever it is worth.

Where it is known how many trials there will be, by their number or a budget of epochs, all are
drawn before the first goes on: then the best of all do, and not the best of the first few. Where
hours are the budget, whoever may go on does so at once. What a budget of epochs has to keep for the
leader's end is kept. What comes next follows from the trials alone.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tuning.config import StudyConfig
from tuning.trial import Trial


@dataclass(frozen=True, slots=True)
class Promotion:
    """A paused trial goes on."""

    number: int
    until: int
    """The epoch after which it pauses again, or ends."""


Step = Promotion | Literal["draw", "wait", "stop"]


def rungs(study: StudyConfig, end: int) -> list[int]:
    """The epochs after which trials pause, and last the `end` of training."""
    at, found = study.stopping.grace, []
    while at < end:
        found.append(at)
        at *= study.stopping.factor
    return [*found, end]


def epochs(study: StudyConfig, end: int, points: int | None = None) -> int:
    """How many a study takes, about; by default of as many points as its budget allows."""
    total, before, left = 0, 0, drawn(study, end) if points is None else points
    for at in rungs(study, end):
        total += left * (at - before)
        before, left = at, max(1, left // study.stopping.factor)
    return total + (study.seeds - 1) * end


def drawn(study: StudyConfig, end: int) -> int:
    """How many points a study draws: all, or as many as its epochs suffice for; one at least."""
    if study.budget.epochs is None:
        return study.points
    enough = range(1, study.points + 1)
    return max(1, bisect_right(enough, study.budget.epochs, key=lambda n: epochs(study, end, n)))


def next_step(
    study: StudyConfig,
    trials: Sequence[Trial],
    end: Callable[[Trial], int],
    *,
    left: float,
    full: int,
    wanted: int | None,
    repeats: bool = False,
    over: bool = False,
) -> Step:
    """What to do when there is room for one more trial.

    `end` is the last epoch of a trial, `full` of most; `left` is how many epochs the budget has
    that no trial was given. `wanted` is how many the next new trial takes first, None where there
    is none; maybe it `repeats` one with another seed. `over` says that the study's hours are: then
    nothing is begun, and the leader alone comes to its end.
    """
    secured = any(t.state == "done" or (t.state == "running" and t.until == end(t)) for t in trials)
    deepest = max((_depth(trial) for trial in trials), default=0)

    def affordable(cost: int, reach: int) -> bool:
        kept = 0 if secured else max(full - max(deepest, reach), 0)
        return not over and cost + kept <= left

    at_once = study.budget.hours is not None
    begun = sum(trial.seed == 0 for trial in trials)
    due = repeats or at_once or begun < drawn(study, full)
    draws = wanted is not None and due and affordable(wanted, wanted)
    if draws and (repeats or not at_once):
        return "draw"
    found = _promotion(study, trials, end, full)
    if found is not None and affordable(found[1], found[0].until):
        return found[0]
    if draws:
        return "draw"
    if any(trial.state == "running" for trial in trials):
        return "wait"
    leader = _leader(study, trials)
    if secured or leader is None or (not over and end(leader) - _depth(leader) > left):
        return "stop"
    return Promotion(leader.number, end(leader))


def worth(study: StudyConfig, trials: Sequence[Trial], end: int) -> set[int]:
    """Numbers of the paused trials that may still go on, whatever those to come are like."""
    kept: set[int] = set()
    room = drawn(study, end)
    for rung, above in pairwise(rungs(study, end)):
        room = max(1, room // study.stopping.factor)
        kept |= {t.number for t in _ranked(study, trials, rung)[:room] if _waits(t, rung, above)}
    return kept


def seen(study: StudyConfig, trials: Sequence[Trial], end: int) -> int:
    """The rung whose values a sampler learns from: the farthest that enough trials have reached.

    Values of different rungs cannot be compared. (BOHB; Falkner et al., 2018.)
    """
    enough = len(study.space) + 3
    reached = {rung: len(_ranked(study, trials, rung)) for rung in rungs(study, end)}
    return max(rung for rung in reached if reached[rung] >= enough or rung == min(reached))


def _promotion(
    study: StudyConfig, trials: Sequence[Trial], end: Callable[[Trial], int], full: int
) -> tuple[Promotion, int] | None:
    """The trial of the lowest rung that is to go on, and what that takes."""
    for rung, above in pairwise(rungs(study, full)):
        ranked = _ranked(study, trials, rung)
        few = len(ranked) // study.stopping.factor
        sent = sum(_depth(trial) >= min(above, end(trial)) for trial in ranked)
        waiting = [trial for trial in ranked[:few] if _waits(trial, rung, above)]
        if waiting and sent < few:
            trial = waiting[0]
            until = min(above, end(trial))
            return Promotion(trial.number, until), until - _depth(trial)
    return None


def _waits(trial: Trial, rung: int, above: int) -> bool:
    """Whether a trial has passed one rung and not the next; the study's hours end it anywhere."""
    return trial.state == "paused" and rung <= _depth(trial) < above


def _leader(study: StudyConfig, trials: Sequence[Trial]) -> Trial | None:
    """The best of the paused trials that came farthest."""
    paused = [trial for trial in trials if trial.state == "paused"]
    if not paused:
        return None
    deepest = max(_depth(trial) for trial in paused)
    return next(iter(_ranked(study, paused, deepest)), None)


def _ranked(study: StudyConfig, trials: Sequence[Trial], rung: int) -> list[Trial]:
    """The trials that reached a rung, best first by what they had there; repeats do not compete."""
    sign = 1.0 if study.directions[study.metric] == "minimize" else -1.0
    there = [trial for trial in trials if trial.seed == 0 and rung in trial.epochs]

    def cost(trial: Trial) -> float:
        value = trial.value(study.metric, rung)
        return math.inf if value is None or math.isnan(value) else sign * value

    found = {trial.number: cost(trial) for trial in there}
    ranked = sorted(there, key=lambda trial: (found[trial.number], trial.number))
    return [trial for trial in ranked if found[trial.number] < math.inf]


def _depth(trial: Trial) -> int:
    """The epoch that a trial has come to, or is on its way to."""
    reached = max(trial.epochs, default=0)
    return max(reached, trial.until or 0) if trial.state == "running" else reached
