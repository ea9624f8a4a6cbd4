"""The ledger of a study: every trial, its settings and results, in one SQLite file (Optuna's).

runs/<study>/study.db

It is all that a study knows. What comes next follows from it alone: the sampler is made anew for
each point, seeded by the study's seed and the number of points before. So a study that was killed
goes on as if it had not been, and nothing of a searcher's or scheduler's memory has to be saved.
"""

import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuning import entry, halving
from tuning.config import StudyConfig
from tuning.proposal import Proposal, experimental, propose, sampler, waits
from tuning.space import Settings, draw
from tuning.trial import Facts, Trial

LEDGER = "study.db"
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Ledger:
    """The study in a directory, made with it if it is not there."""

    def __init__(
        self, path: Path, config: StudyConfig, epochs: int = 1, baseline: Settings | None = None
    ) -> None:
        """`epochs` is what a training has, `baseline` what the first point shall be."""
        self.config, self.epochs, self.baseline = config, epochs, baseline
        self.waits = False
        """Whether what comes next, if anything, is known only when trials that run have ended."""
        self.study = entry.opened(path / LEDGER, list(config.directions.values()))
        self._halving = config.stopping.kind == "asha"
        self.handed: set[int] = set()
        """Trials that were given out since the ledger was opened and have not been brought back."""
        self.began = time.monotonic()
        self.before = float(self.study.user_attrs.get("wall", 0.0))

    def trials(self) -> list[Trial]:
        """All trials of this study, in order."""
        found = self.study.get_trials(deepcopy=False)
        return [self._known(trial) for trial in found if "from" not in trial.user_attrs]

    def get(self, number: int) -> Trial:
        """One trial."""
        return self._known(self._frozen(number))

    def _known(self, found: FrozenTrial) -> Trial:
        trial = entry.read(found)
        # One whose last epoch is told is still handed out until its process has let it go.
        held = found.number in self.handed
        if trial.state == "running" and trial.until is not None and not held:
            reached = max(trial.epochs, default=0)
            if reached and self.until(trial) <= reached < self.end(trial):
                return replace(trial, state="paused")
        return trial

    def next(self) -> Trial | None:
        """The next trial to run: one that was broken off, or a new one; None where none is."""
        self.waits = False
        trials = self.trials()
        for trial in trials:
            if trial.state == "running" and trial.number not in self.handed:
                return self._given(trial.number)
        if self._halving:
            return self._halved(trials)
        if self.spent():
            return None
        self.waits = waits(self.config, trials)
        if self.waits:
            return None
        proposal = propose(self.config, trials, self.epochs, self.baseline)
        return None if proposal is None else self._asked(proposal)

    def _halved(self, trials: Sequence[Trial]) -> Trial | None:
        """The same where trials pause at rungs."""
        proposal = propose(self.config, trials, self.epochs, self.baseline)
        wanted, repeats = None, proposal is not None and proposal.point is not None
        if proposal is not None:
            wanted = self.epochs if repeats else min(self.config.stopping.grace, self.epochs)
        step = halving.next_step(
            self.config,
            trials,
            self.end,
            left=self._left(trials),
            full=self.epochs,
            wanted=wanted,
            repeats=repeats,
            over=self.late,
        )
        self.waits = step == "wait"
        if isinstance(step, halving.Promotion):
            self.mark(step.number, "until", step.until)
            return self._given(step.number)
        return self._asked(proposal, wanted) if step == "draw" and proposal is not None else None

    def _left(self, trials: Sequence[Trial]) -> float:
        """Epochs of the budget that no trial has taken or was given."""
        if self.config.budget.epochs is None:
            return math.inf
        taken = sum(len(trial.epochs) for trial in trials)
        given = [trial for trial in trials if trial.state == "running"]
        return (
            self.config.budget.epochs
            - taken
            - sum(self.until(trial) - max(trial.epochs, default=0) for trial in given)
        )

    def until(self, trial: Trial) -> int:
        """The epoch after which a trial ends, or pauses."""
        if self.config.searcher == "pbt":
            return min((trial.generation + 1) * self.config.interval, self.end(trial))
        return min(trial.until or self.end(trial), self.end(trial))

    def end(self, trial: Trial) -> int:
        """The last epoch of a trial's training."""
        return int(trial.settings.get("optimizer.epochs", self.epochs))

    def report(self, number: int, epoch: int, facts: Facts) -> bool:
        """Write down an epoch of a trial; returns whether the trial shall stop.

        One that is reported again, after a restart, changes nothing and gets the same answer. The
        last epoch of a trial is never a reason to stop it.
        """
        live = self._live(number)
        told = live.user_attrs.get(entry.epoch_key(epoch))
        if told is not None:
            return bool(json.loads(told)["stop"])
        self._clock()
        trial = self.get(number)
        stop = pause = False
        if epoch < self.until(trial):
            if not self._halving:
                stop = self.spent()
            elif self.late and self.until(trial) < self.end(trial):
                pause = True
        if stop:
            live.set_user_attr("reason", f"the budget is spent, after epoch {epoch}")
        live.set_user_attr(entry.epoch_key(epoch), json.dumps(facts | {"stop": stop}))
        if pause:
            live.set_user_attr("until", epoch)
        return stop or pause

    def finish(self, number: int) -> Trial:
        """A trial has come to its end, or to a rung, or was stopped as `report` said."""
        self.handed.discard(number)
        trial = self.get(number)
        values = [trial.value(metric) for metric in self.config.directions]
        if trial.state != "running":
            return trial
        if trial.reason is not None and trial.epochs:
            self.study.tell(number, state=TrialState.PRUNED)
        elif any(value is None or math.isnan(value) for value in values):
            nothing = ", ".join(self.config.directions)
            return self.fail(number, f"{nothing} is no number on these validation mails")
        else:
            self.study.tell(number, [value for value in values if value is not None])
        self._clock()
        return self.get(number)

    def mark(self, number: int, key: str, value: Any) -> None:
        """Remember something of a trial."""
        self._live(number).set_user_attr(key, value)

    def marked(self, number: int, key: str) -> str | None:
        """What `mark` remembered."""
        return self._frozen(number).user_attrs.get(key)

    def fail(self, number: int, reason: str) -> Trial:
        """A trial cannot go on."""
        self.handed.discard(number)
        if self._frozen(number).state is TrialState.RUNNING:
            self._live(number).set_user_attr("reason", reason)
            self.study.tell(number, state=TrialState.FAIL)
            self._clock()
        return self.get(number)

    def spent(self) -> bool:
        """Whether the budget has no room for an epoch more: of a new trial, or of one that runs.

        What other trials are at counts as done: each of them will finish the epoch it is in.
        """
        budget = self.config.budget
        if self.late:
            return True
        if budget.epochs is None:
            return False
        trials = self.trials()
        begun = sum(1 for t in trials if t.state == "running" and t.number in self.handed)
        return sum(len(t.epochs) for t in trials) + begun >= budget.epochs

    @property
    def late(self) -> bool:
        """Whether the hours of the budget are over."""
        hours = self.config.budget.hours
        return hours is not None and self.wall >= hours * 3600

    @property
    def wall(self) -> float:
        """Seconds that the study has taken, in all sessions."""
        return self.before + time.monotonic() - self.began

    def learn(self, name: str, trials: Sequence[Trial]) -> int:
        """Give the searcher the results of another study; returns how many it can use."""
        space = self.config.space
        used = 0
        for trial in trials:
            found = [trial.value(metric) for metric in self.config.directions]
            values = [value for value in found if value is not None]
            if trial.state != "done" or len(values) < len(found):
                continue
            probe = optuna.trial.FixedTrial({k: v for k, v in trial.settings.items() if k in space})
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what is refused below
                    settings = draw(space, probe)  # type: ignore[arg-type]
                dists = probe.distributions
                told = optuna.trial.create_trial(
                    params=settings, distributions=dists, values=values, user_attrs={"from": name}
                )
            except ValueError:  # a key is missing there, or a value lies outside
                continue
            self.study.add_trial(told)
            used += 1
        return used

    def importance(self) -> dict[str, float]:
        """How much each key decides of the objective, shares that add up to 1; empty if unknown."""
        sign = 1.0 if self.config.directions[self.config.metric] == "minimize" else -1.0
        several = len(self.config.directions) > 1
        target = (lambda trial: sign * trial.values[0]) if several else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PED-ANOVA is; chosen by Optuna
                found = optuna.importance.get_param_importances(self.study, target=target)
        except (RuntimeError, ValueError):  # too few trials, or all alike
            return {}
        return {key: float(value) for key, value in found.items()}

    def _asked(self, proposal: Proposal, until: int | None = None) -> Trial:
        """A new trial, of the proposal's settings or of a point that the sampler draws.

        It is drawn in a copy, of what the sampler shall see, and stands here as a whole or not.
        """
        with experimental():
            seen = optuna.create_study(
                directions=list(self.config.directions.values()),
                sampler=sampler(self.config, proposal, self.epochs),
            )
            seen.add_trials(self._seen())
            drawn = seen.ask()
            settings = draw(self.config.space, drawn)
        number = len(self.study.get_trials(deepcopy=False))
        facts = {
            "settings": json.dumps(settings),
            "point": number if proposal.point is None else proposal.point,
            "seed": proposal.seed, "generation": proposal.generation,
            "origin": proposal.origin, "until": until,
        }  # fmt: skip
        made = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=facts,
        )
        self.study.add_trial(made)
        return self._given(number)

    def _seen(self) -> list[FrozenTrial]:
        """What a sampler learns from: trials that ended; where they pause, all at one rung."""
        found = self.study.get_trials(deepcopy=False)
        if not self._halving:
            return found
        trials = {trial.number: trial for trial in self.trials()}
        rung = halving.seen(self.config, list(trials.values()), self.epochs)
        rows = [trial for trial in found if trial.number not in trials]
        for number, trial in trials.items():
            value = trial.value(self.config.metric, rung) if rung in trial.epochs else None
            if value is not None and not math.isnan(value):
                params, dists = found[number].params, found[number].distributions
                rows.append(
                    optuna.trial.create_trial(params=params, distributions=dists, value=value)
                )
        return rows

    def _given(self, number: int) -> Trial:
        self.handed.add(number)
        return self.get(number)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _live(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self._frozen(number)._trial_id)

    def _clock(self) -> None:
        self.study.set_user_attr("wall", self.wall)
