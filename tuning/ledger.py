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
from pathlib import Path

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuning.config import Direction, StudyConfig
from tuning.proposal import Proposal, experimental, propose, sampler, waits
from tuning.space import Settings, draw
from tuning.trial import Facts, State, Trial

LEDGER = "study.db"
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}
optuna.logging.set_verbosity(optuna.logging.ERROR)


class LedgerError(RuntimeError):
    """A ledger cannot be read, or does not fit; the message says why."""


class Ledger:
    """The study in a directory, made with it if it is not there."""

    def __init__(
        self, path: Path, config: StudyConfig, epochs: int = 1, baseline: Settings | None = None
    ) -> None:
        """`epochs` is what a training has, `baseline` what the first point shall be."""
        self.config, self.epochs, self.baseline = config, epochs, baseline
        self.waits = False
        """Whether what comes next, if anything, is known only when trials that run have ended."""
        self.study = _opened(path / LEDGER, list(config.directions.values()))
        stopping = config.stopping
        if stopping.kind == "asha":
            self.study.pruner = SuccessiveHalvingPruner(stopping.grace, stopping.factor)
        self.handed: set[int] = set()
        """Trials that were given out since the ledger was opened."""
        self.began = time.monotonic()
        self.before = float(self.study.user_attrs.get("wall", 0.0))

    def trials(self) -> list[Trial]:
        """All trials of this study, in order."""
        return [_trial(t) for t in self._own()]

    def get(self, number: int) -> Trial:
        """One trial."""
        return _trial(self._frozen(number))

    def next(self) -> Trial | None:
        """The next trial to run: one that was broken off, or a new one; None where none is."""
        self.waits = False
        known = self._own()
        for found in known:
            if found.state is TrialState.RUNNING and found.number not in self.handed:
                return self._given(found.number)
        if self.spent():
            return None
        trials = [_trial(found) for found in known]
        self.waits = waits(self.config, trials)
        if self.waits:
            return None
        proposal = propose(self.config, trials, self.epochs, self.baseline)
        return None if proposal is None else self._asked(proposal)

    def report(self, number: int, epoch: int, facts: Facts, *, last: bool) -> bool:
        """Write down an epoch of a trial; returns whether the trial shall stop.

        One that is reported again, after a restart, changes nothing and gets the same answer. The
        `last` epoch of a trial is never a reason to stop it.
        """
        trial = self._live(number)
        told = trial.user_attrs.get(_epoch(epoch))
        if told is not None:
            return bool(json.loads(told)["stop"])
        reason = None
        if len(self.config.directions) == 1:
            value = facts.get(self.config.metric)
            if epoch not in self._frozen(number).intermediate_values:
                trial.report(float("nan") if value is None else float(value), epoch)
            if self.config.stopping.kind == "asha" and not last and trial.should_prune():
                reason = f"asha, after epoch {epoch}"
        self._clock()
        if reason is None and not last and self.spent():
            reason = f"the budget is spent, after epoch {epoch}"
        if reason:
            trial.set_user_attr("reason", reason)
        trial.set_user_attr(_epoch(epoch), json.dumps(facts | {"stop": reason is not None}))
        return reason is not None

    def finish(self, number: int) -> Trial:
        """A trial has come to its end, or was stopped as `report` said."""
        trial = _trial(self._frozen(number))
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
        return _trial(self._frozen(number))

    def mark(self, number: int, key: str, value: str) -> None:
        """Remember something of a trial."""
        self._live(number).set_user_attr(key, value)

    def marked(self, number: int, key: str) -> str | None:
        """What `mark` remembered."""
        return self._frozen(number).user_attrs.get(key)

    def fail(self, number: int, reason: str) -> Trial:
        """A trial cannot go on."""
        if self._frozen(number).state is TrialState.RUNNING:
            self._live(number).set_user_attr("reason", reason)
            self.study.tell(number, state=TrialState.FAIL)
            self._clock()
        return _trial(self._frozen(number))

    def spent(self) -> bool:
        """Whether the budget has no room for an epoch more: of a new trial, or of one that runs.

        What other trials are at counts as done: each of them will finish the epoch it is in.
        """
        budget = self.config.budget
        if budget.hours is not None and self.wall >= budget.hours * 3600:
            return True
        if budget.epochs is None:
            return False
        trials = self.trials()
        begun = sum(1 for t in trials if t.state == "running" and t.number in self.handed)
        return sum(len(t.epochs) for t in trials) + begun >= budget.epochs

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

    def _own(self) -> list[FrozenTrial]:
        """Trials of this study: not those it learned from, nor one whose drawing was broken off."""
        found = self.study.get_trials(deepcopy=False)
        return [t for t in found if "from" not in t.user_attrs and "seed" in t.user_attrs]

    def _asked(self, proposal: Proposal) -> Trial:
        """A new trial, of the proposal's settings or of a point that the sampler draws."""
        for left in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "seed" not in left.user_attrs:  # the driver died while it was drawn
                self.study.tell(left.number, state=TrialState.FAIL)
        with experimental():
            self.study.sampler = sampler(self.config, proposal, self.epochs)
            trial = self.study.ask()
            settings = draw(self.config.space, trial)
        point = trial.number if proposal.point is None else proposal.point
        facts = {
            "settings": json.dumps(settings), "point": point,
            "generation": proposal.generation, "origin": proposal.origin,
            "seed": proposal.seed,  # last: with it the trial is one
        }  # fmt: skip
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        return self._given(trial.number)

    def _given(self, number: int) -> Trial:
        self.handed.add(number)
        return _trial(self._frozen(number))

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _live(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self._frozen(number)._trial_id)

    def _clock(self) -> None:
        self.study.set_user_attr("wall", self.wall)


def _opened(file: Path, directions: list[Direction]) -> Study:
    try:
        with experimental():
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            study = optuna.create_study(
                storage=storage, study_name="study", directions=directions, load_if_exists=True
            )
    except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own
        reason = str(error).splitlines()[0]
        raise LedgerError(f"{file} cannot be opened: {reason}") from error
    return study


def _epoch(epoch: int) -> str:
    return f"epoch:{epoch:05d}"


def _trial(found: FrozenTrial) -> Trial:
    attrs = found.user_attrs
    epochs = {
        int(key.partition(":")[2]): json.loads(value)
        for key, value in sorted(attrs.items())
        if key.startswith("epoch:")
    }
    return Trial(
        number=found.number,
        point=int(attrs["point"]),
        seed=int(attrs["seed"]),
        settings=json.loads(attrs["settings"]),
        state=_STATES[found.state],
        epochs=epochs,
        reason=attrs.get("reason"),
        generation=int(attrs.get("generation", 0)),
        origin=attrs.get("origin"),
    )
