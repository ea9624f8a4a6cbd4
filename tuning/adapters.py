"""What Ray Tune takes for searcher, scheduler and callback: each asks the course of the study."""

from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.corpora import key
from tuning.course import Course
from tuning.trial import settled


class Draws(Searcher):
    """What Tune takes for a searcher: the ledger's next trial."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course = course
        self.numbers: dict[str, int] = {}
        """By Tune's id, those of this session."""

    def set_search_properties(self, *args: Any, **options: Any) -> bool:
        """Space, metric and direction are the ledger's."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's number, settings and seed."""
        trial = self.course.next()
        if trial is None:
            return None if self.course.ledger.waits else Searcher.FINISHED
        self.numbers[trial_id] = trial.number
        return {
            "number": trial.number,
            "settings": trial.settings,
            "seed": trial.seed,
            "origin": trial.origin,
            "until": self.course.ledger.until(trial),
            "mails": key(settled(self.course.config, trial.settings, trial.seed)),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial has ended; one whose process died is told of by `Deaths`, which knows why."""
        if not error:
            self.course.ended(self.numbers[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Verdicts(FIFOScheduler):
    """What Tune takes for a scheduler: the ledger says which trial goes on."""

    def __init__(self, course: Course) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.course = course

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on, or stop."""
        stop = self.course.told(trial.config["number"], result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class Deaths(tune.Callback):
    """Trials whose process died too often."""

    def __init__(self, course: Course) -> None:
        self.course = course

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down why."""
        error = trial.get_pickled_error() or trial.get_error() or "its process died"
        lines = [line for line in str(error).splitlines() if line.strip()]
        self.course.ended(trial.config["number"], lines[-1] if lines else type(error).__name__)
