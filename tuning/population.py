"""Population-based training: members train side by side, and the poor go on from the good.

All members train for `interval` epochs; then those of the worst quarter take the weights of one of
the best quarter, and its settings a little changed, and so on to the last epoch. Who takes whose
and what is changed follows from the ledger and the seed alone. (Jaderberg et al., 2017; unlike
there, and in Ray Tune, members wait for each other: who was faster decides nothing.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuning.config import StudyConfig
from tuning.space import Axis, Settings
from tuning.trial import Trial

QUARTER = 0.25
FACTORS = (0.8, 1.25)
RESAMPLED = 0.25
"""The chance of another value, where values are chosen from a list."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a member of the population does next."""

    settings: Settings
    origin: int
    """The trial whose newest checkpoint it goes on from."""


def generations(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The members of each generation, oldest first; one at least, which may be empty."""
    newest = max((trial.generation for trial in trials), default=0)
    return [[trial for trial in trials if trial.generation == at] for at in range(newest + 1)]


def next_generation(study: StudyConfig, before: Sequence[Trial], generation: int) -> list[Member]:
    """The members after those of `before`, in order; none where no member has a result."""
    metric = study.metric
    sign = 1.0 if study.directions[metric] == "minimize" else -1.0

    def cost(trial: Trial) -> float:
        value = trial.value(metric) if trial.state == "done" else None
        return math.inf if value is None else sign * value

    ranked = sorted(before, key=cost)
    few = max(1, math.floor(len(ranked) * QUARTER)) if len(ranked) > 1 else 0
    best = [trial for trial in ranked[: max(few, 1)] if trial.state == "done"]
    if not best:
        return []
    poor = {trial.number for trial in ranked[len(ranked) - few :]}
    members = []
    for at, trial in enumerate(before):
        if trial.number not in poor and trial.state == "done":
            members.append(Member(trial.settings, trial.number))
            continue
        chance = np.random.default_rng([study.seed, generation, at])
        donor = best[int(chance.integers(len(best)))]
        members.append(Member(changed(study.space, donor.settings, chance), donor.number))
    return members


def changed(space: dict[str, Axis], settings: Settings, chance: np.random.Generator) -> Settings:
    """The same settings, each a little different, within the space."""
    made: Settings = {}
    for key, value in settings.items():
        axis = space[key]
        if axis.values:
            again = chance.random() < RESAMPLED
            made[key] = axis.values[int(chance.integers(len(axis.values)))] if again else value
            continue
        low, high = axis.uniform or axis.loguniform or axis.integers or (value, value)
        if axis.integers is not None:
            made[key] = int(np.clip(value + chance.choice([-1, 1]), low, high))
        else:
            made[key] = float(np.clip(value * chance.choice(FACTORS), low, high))
    return made
