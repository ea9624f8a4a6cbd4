"""What a study trains next: a pure function of its config and of the trials so far."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler

from tuning.config import StudyConfig
from tuning.population import generations, next_generation
from tuning.space import Settings, combinations
from tuning.trial import Trial


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial that is not there yet."""

    settings: Settings | None = None
    """None where a sampler shall draw them."""
    points: int = 0
    """Points that there are already; with the study's seed that of the sampler."""
    point: int | None = None
    """The number of an earlier trial with these settings."""
    seed: int = 0
    generation: int = 0
    origin: int | None = None
    """The trial whose weights it goes on from."""


def propose(
    config: StudyConfig, trials: Sequence[Trial], epochs: int, baseline: Settings | None
) -> Proposal | None:
    """What comes after these trials; None where nothing does.

    `epochs` is what a training has, `baseline` what the first point shall be.
    """
    if config.searcher == "pbt" and len(trials) >= config.trials:
        return _member(config, trials, epochs)
    if (repeat := _repeat(config, trials)) is not None:
        return repeat
    points = sum(1 for trial in trials if trial.seed == 0)
    if points >= config.points:
        return None
    if config.searcher == "grid":
        return Proposal(combinations(config.space)[points])
    first = baseline if points == 0 and config.baseline else None
    return Proposal(first, points)


def waits(config: StudyConfig, trials: Sequence[Trial]) -> bool:
    """Whether what comes next, if anything, is known only when trials that run have ended."""
    if config.searcher != "pbt" or len(trials) < config.trials:
        return False
    newest = generations(trials)[-1]
    whole = len(newest) == config.trials
    return whole and any(trial.state == "running" for trial in newest)


def sampler(config: StudyConfig, proposal: Proposal, epochs: int) -> BaseSampler:
    """What chooses the settings of a proposal, made for it alone."""
    if proposal.settings is not None:
        # Not `enqueue_trial`, which leaves a trial that waits if the driver dies then.
        return PartialFixedSampler(proposal.settings, RandomSampler())
    seed = (config.seed * 1_000_003 + proposal.points) % 2**32
    first = max(3, min(10, _expected(config, epochs) // 3))
    if config.searcher == "gp":
        return GPSampler(seed=seed, n_startup_trials=first, warn_independent_sampling=False)
    if config.searcher == "bayes":
        return TPESampler(seed=seed, n_startup_trials=first, group=True)
    return RandomSampler(seed=seed)


@contextmanager
def experimental() -> Iterator[None]:
    """Without Optuna's warnings of parts that may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _repeat(config: StudyConfig, trials: Sequence[Trial]) -> Proposal | None:
    """The next seed of a point that has not had all, and is still worth it."""
    of: dict[int, list[Trial]] = {}
    for trial in trials:
        of.setdefault(trial.point, []).append(trial)
    for point, given in of.items():
        lost = any(trial.state in ("paused", "stopped", "failed") for trial in given)
        early = config.stopping.kind == "asha" and given[0].state != "done"
        if len(given) < config.seeds and not lost and not early:
            return Proposal(given[0].settings, point=point, seed=len(given))
    return None


def _member(config: StudyConfig, trials: Sequence[Trial], epochs: int) -> Proposal | None:
    """The next member of a population's newest generation, or the first of another."""
    of = generations(trials)
    if len(of[-1]) == config.trials:
        of.append([])
    at = len(of) - 1
    if at * config.interval >= epochs:
        return None
    members = next_generation(config, of[-2], at)
    if not members:
        return None
    member = members[len(of[-1])]
    return Proposal(member.settings, generation=at, origin=member.origin)


def _expected(config: StudyConfig, epochs: int) -> int:
    """About how many trials there will be: one that may be stopped takes two rounds or so."""
    if config.budget.epochs is None:
        return config.trials
    each = epochs if config.stopping.kind == "none" else 2 * config.stopping.grace
    return min(config.trials, config.budget.epochs // each)
