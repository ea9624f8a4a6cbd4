"""The course of a study: what happens when a trial starts, tells of an epoch, and ends.

Tune runs the trials and asks here: `Draws` gives it the next, `Verdicts` says which go on. All
memory is the ledger's, and Tune writes down nothing that would be needed again.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Final

from training import checkpoint
from training.config import TrainConfig
from training.home import Home
from training.progress import Message
from training.recorder import Recorder
from training.stages import Stage
from tuning.answers import front, points, winner
from tuning.config import StudyConfig
from tuning.halving import epochs, worth
from tuning.ledger import Ledger
from tuning.space import Settings
from tuning.trial import Trial, folder, settled

LOG_SECONDS: Final = 5.0
"""Between two records of a trial's training loss in the tracker."""


class Course:
    """A study while it runs: ledger, tracker, disk, and the line on the terminal."""

    def __init__(
        self,
        ledger: Ledger,
        config: TrainConfig,
        path: Path,
        home: Home,
        parent: Recorder,
        tags: Callable[[TrainConfig], dict[str, str]],
        stage: Stage,
        note: Callable[[str], None],
    ) -> None:
        self.ledger, self.config, self.path, self.home = ledger, config, path, home
        self.parent, self.tags, self.stage, self.note = parent, tags, stage, note
        self.study: StudyConfig = ledger.config
        self.trackers: dict[int, Recorder] = {}
        self.lock = Lock()
        self.logged: dict[int, float] = {}
        """When a message of a running trial went to the tracker last."""
        self.places: dict[int, Message] = {}
        """Of each running trial the last message."""
        self.began = time.monotonic()
        self.known = sum(len(trial.epochs) for trial in ledger.trials())

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune writes down what it is given, for those who restore by it, which nobody does here.
        return (object, ())

    def next(self) -> Trial | None:
        """The next trial, which is started now."""
        trial = self.ledger.next()
        if trial is not None:
            self._track(trial)
            self.places[trial.number] = {}
            self._say()
        return trial

    def _track(self, trial: Trial) -> None:
        if trial.number in self.trackers:  # it had paused
            return
        number, config = trial.number, settled(self.config, trial.settings, trial.seed)
        place = folder(self.path, number)
        place.mkdir(parents=True, exist_ok=True)
        tracker = Recorder(
            self.home, config, f"{self.path.name}-{number:04d}", place, self.note,
            tags=self.tags(config), run_id=self.ledger.marked(number, "tracked"),
            parent=self.parent, found=lambda run_id: self._found(number, run_id),
        )  # fmt: skip
        with self.lock:
            self.trackers[number] = tracker

    def _found(self, number: int, run_id: str) -> None:
        """MLflow has given a trial its id; where it was down, maybe after the trial's end."""
        if self.ledger.get(number).state in ("running", "paused"):
            self.ledger.mark(number, "tracked", run_id)

    def told(self, number: int, result: dict[str, Any]) -> bool:
        """Take note of what a trial reported; returns whether it shall stop."""
        if (fault := result.get("fault")) is not None:
            self.ledger.fail(number, fault)
            return True
        if (said := result.get("facts")) is None:
            return False
        facts = json.loads(said)
        epoch = facts["epoch"]
        trial = self.ledger.get(number)
        stop = self.ledger.report(number, epoch, facts)
        if epoch not in trial.epochs:
            metrics = {k: v for k, v in facts.items() if k not in ("epoch", "seen")}
            with self.lock:
                self.trackers[number].log(metrics, int(facts["seen"]))
        self._say()
        return stop

    def ended(self, number: int, reason: str | None = None) -> None:
        """A trial is over; with a `reason`, because it failed."""
        ledger = self.ledger
        trial = ledger.finish(number) if reason is None else ledger.fail(number, reason)
        known = self.places.pop(number, None) is not None
        if trial.state != "paused":  # else it goes on, maybe, and so does its run in the tracker
            with self.lock:
                if (tracker := self.trackers.pop(number, None)) is not None:
                    tracker.close("FAILED" if trial.state == "failed" else "FINISHED")
        if known:
            self.note(_row(trial, self.study))
        self._tidy()
        self._say()

    def message(self, message: Message) -> None:
        """Where a running trial is, from its own process; called in another thread."""
        number, kind = message.get("trial"), message.get("kind")  # none: of a worker group
        if kind not in ("step", "system") or number is None or number not in self.places:
            return
        if kind == "system":
            metrics = {key: value for key, value in message.items() if key.startswith("system/")}
        else:
            self.places[number] = message
            now = time.monotonic()
            if now - self.logged.get(number, 0.0) < LOG_SECONDS:
                return
            self.logged[number] = now
            metrics = {"train_loss": message["loss"], "lr": message["lr"]}
        with self.lock:
            if (tracker := self.trackers.get(number)) is not None:
                tracker.log(metrics, self.places.get(number, {}).get("seen", 0))

    def close(self) -> None:
        """The driver leaves; trials that run now may go on another time."""
        paused = [trial for trial in self.ledger.trials() if trial.state == "paused"]
        for trial in paused:  # the trackers of some may have been left open by a driver that died
            if self.ledger.marked(trial.number, "tracked"):
                self._track(trial)
        ended = {trial.number for trial in paused}
        with self.lock:
            for number, tracker in self.trackers.items():
                tracker.close("FINISHED" if number in ended else "KILLED")
            self.trackers.clear()

    def _tidy(self) -> None:
        """Remove the checkpoints of trials that ended and will not be the best."""
        trials = self.ledger.trials()
        ranked = points(trials, self.study.directions)
        kept = {trial.number for trial in trials if trial.state == "running"}
        best = ranked[:1] if len(self.study.directions) == 1 else front(
            ranked, self.study.directions
        )  # fmt: skip
        kept |= {trial.number for point in best for trial in point.done}
        if self.study.stopping.kind == "asha":
            kept |= worth(self.study, trials, self.config.optimizer.epochs)
        newest = max((trial.generation for trial in trials), default=0)
        goes_on = self.study.searcher == "pbt"
        for trial in trials:
            place = folder(self.path, trial.number) / "checkpoints"
            if goes_on and trial.generation >= newest - 1:
                continue  # others may begin with it
            if trial.number not in kept:
                shutil.rmtree(place, ignore_errors=True)
            elif trial.state == "done" and place.is_dir():
                checkpoint.keep_best(place)

    def _say(self) -> None:
        trials = self.ledger.trials()
        total, each = self.study.planned(self.config.optimizer.epochs)
        whole = total * each
        ended = [trial for trial in trials if trial.state != "running"]
        done = sum(each if t.state != "running" else len(t.epochs) for t in trials)
        if self.study.stopping.kind == "asha":
            done = sum(len(trial.epochs) for trial in trials)
            whole = max(epochs(self.study, each), done)
        parts = [f"{len(ended)} of {total} trials"]
        if failed := sum(trial.state == "failed" for trial in ended):
            parts.append(f"{failed} failed")
        if running := [_place(n, m) for n, m in sorted(self.places.items())]:
            parts.append(f"running {', '.join(running)}")
        if (
            best := winner(points(trials, self.study.directions), self.study.directions)
        ) is not None:
            value = best.value(self.study.metric) or 0.0
            parts.append(f"best {self.study.metric} {value:.4f} ({shown(best.settings)})")
        each_has = self.study.resources
        cores = sum(t.seconds for t in trials) * each_has.workers * each_has.cpus / 3600
        parts.append(f"{cores:.2f} core-hours")
        if left := self._left(trials, done, whole):
            parts.append(left)
        self.stage.update(", ".join(parts), done, whole)

    def _left(self, trials: list[Trial], done: int, total: int) -> str:
        """How long it will still take, as this session's epochs went."""
        fresh = sum(len(trial.epochs) for trial in trials) - self.known
        if fresh < 1 or total <= done:
            return ""
        seconds = (time.monotonic() - self.began) / fresh * (total - done)
        return f"at most {seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"


def shown(settings: Settings) -> str:
    """Settings in one line."""
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in settings.items()
    )


def _row(trial: Trial, study: StudyConfig) -> str:
    values = [(metric, trial.value(metric)) for metric in study.directions]
    said = "  ".join(f"{m} {v:.4f}" for m, v in values if v is not None) or "no result"
    seed = f", seed +{trial.seed}" if study.seeds > 1 else ""
    reason = f"  ({trial.reason})" if trial.reason else ""
    return (
        f"trial {trial.number:>3} {trial.state:<8} {said}  {len(trial.epochs)} epochs  "
        f"{trial.seconds:.1f} s  {shown(trial.settings)}{seed}{reason}"
    )


def _place(number: int, message: Message) -> str:
    if not message:
        return f"#{number}"
    return f"#{number} epoch {message['epoch'] + 1} step {message['step']}/{message['steps']}"
