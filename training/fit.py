"""`fit`: a config in, a trained, tested and registered bundle out. `mailray train` is this.

runs/<name>/run.json      the config, the state of the run, where it is tracked
runs/<name>/bundle/       the best checkpoint as a bundle
runs/<name>/checkpoints/  see training/checkpoint.py; of a finished run, the best one's weights
runs/<name>/tensorboard/
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from training.checkpoint import keep_best
from training.home import Home
from training.mails import load
from training.run import Run
from training.stages import Stages
from training.status import Status
from training.tracking import Tracker
from training.trainer import train_run
from training.weights import tokenizer

if TYPE_CHECKING:
    from training.completion import Result


def fit(run: Run, home: Home, stages: Stages) -> "Result":
    """Train, choose the best checkpoint, test it, and register it.

    Ray must be connected. What was done of `run` before is not done again.

    Raises:
        ConfigError, SourceError: the config asks for what is not there.
        RunError: training failed; the message has the cause.
    """
    began = time.monotonic()
    mails = load(run.config.data, tokenizer(run.config.model.name), home, stages)
    tracker = Tracker(home, run.config, run.path.name, run.path / "tensorboard", run.tracked)
    run = replace(run, tracked=tracker.run_id, state="running")
    run.write()
    with _recorded(run, tracker):
        with stages.stage("training") as stage:
            status = Status(stage, stages.note, run.config, len(mails.rows().train), tracker.log)
            best = train_run(run, mails, status)
            stage.update(status.closing())
        from training.completion import complete  # transformers: not before workers train

        result = complete(run, mails, best, home, stages, tracker, began, status)
    keep_best(run.path / "checkpoints")
    return result


@contextmanager
def _recorded(run: Run, tracker: Tracker) -> Iterator[None]:
    """The run's state, here and in the tracker, follows how the block ends."""
    try:
        yield
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        replace(run, state="failed").write()
        raise
    tracker.finish("FINISHED")
    replace(run, state="done").write()
