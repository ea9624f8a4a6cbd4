"""The trainable: the same `train_run` as `mailray train`, with its results handed to Tune.

runs/<study>/trials/<number>/results.jsonl   what each epoch gave, written before Tune hears of it

With one worker it trains in Tune's own process, which stays for the next trial. After a restart
what was told before is told again, and training goes on from the trial's newest checkpoint.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune.integration.ray_train import TuneReportCallback

from training import checkpoint
from training.config import TrainConfig
from training.mails import Mails
from training.run import Run
from training.trainer import RunError, train_run
from tuning.trial import Facts, folder, settled

RESULTS = "results.jsonl"


def run_trial(
    given: dict[str, Any],
    mails: dict[str, Mails],
    config: TrainConfig,
    study: Path,
    board: ActorHandle[Any] | None,
) -> None:
    """Tune's trainable; `given` has the trial's number, settings and seed, and which `mails`."""
    run = Run(folder(study, given["number"]), settled(config, given["settings"], given["seed"]))
    results = Results(run.path / RESULTS)
    for facts in results.known.values():
        tune.report(_said(facts))
    if given["origin"] is not None:
        _take_over(folder(study, given["origin"]), run.path)
    more: dict[str, Any] = {"callbacks": [_Tell(results)]}
    if run.config.scaling.most == 1:
        more = {"report": results.telling(tune.report)}
    marks = {"trial": given["number"]}
    try:
        train_run(
            run, mails[given["mails"]], board=board, marks=marks, until=given["until"], **more
        )
    except RunError as error:
        tune.report({"fault": str(error)})


def _take_over(origin: Path, run: Path) -> None:
    """Begin with the newest checkpoint of another trial, unless the run has begun."""
    place = run / "checkpoints"
    newest = checkpoint.latest(origin / "checkpoints").path
    if place.exists() or newest is None:
        return
    scratch = run / ".checkpoints"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(newest, scratch / newest.name)
    scratch.replace(place)


class Results:
    """What the epochs of a trial gave, on disk."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[int, Facts] = {}
        if file.is_file():
            for line in file.read_text("utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # else its writer was killed
                    facts = json.loads(line)
                    self.known[facts["epoch"]] = facts
        self.began = time.monotonic()

    def add(self, metrics: Facts) -> Facts | None:
        """Write an epoch down; None where it was there, since it was done once more."""
        seconds, self.began = time.monotonic() - self.began, time.monotonic()
        facts = {**metrics, "epoch": int(metrics["epoch"]), "seconds": seconds}
        if facts["epoch"] in self.known:
            return None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        whole = "".join(json.dumps(row) + "\n" for row in self.known.values())
        self.known[facts["epoch"]] = facts
        scratch = self.file.with_suffix(".new")
        scratch.write_text(whole + json.dumps(facts) + "\n", "utf-8")
        scratch.replace(self.file)
        return facts

    def telling(self, report: Callable[[Facts], None]) -> Callable[[Facts], None]:
        """A function that writes an epoch down and then reports it."""

        def tell(metrics: Facts) -> None:
            if (facts := self.add(metrics)) is not None:
                report(_said(facts))

        return tell


class _Tell(TuneReportCallback):
    """The same where the trial has several workers; in their controller."""

    def __init__(self, results: Results) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.results = results

    def after_report(
        self, run_context: Any, metrics: Sequence[dict[str, Any]], checkpoint: Any
    ) -> None:
        """One epoch, as rank 0 has it."""
        if (facts := self.results.add(metrics[0])) is not None:
            super().after_report(run_context, [_said(facts)], checkpoint)


def _said(facts: Facts) -> dict[str, Any]:
    # As text: Tune would flatten it.
    return {"epoch": facts["epoch"], "facts": json.dumps(facts)}
