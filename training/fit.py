"""`fit`: a config in, a trained, tested and registered bundle out. `mailray train` is this.

runs/<name>/run.json      the config, the state of the run, where it is tracked
runs/<name>/config.yaml   the config again, for people and trackers
runs/<name>/bundle/       the best checkpoint as a bundle
runs/<name>/checkpoints/  see training/checkpoint.py; of a finished run, the best one's weights
runs/<name>/tensorboard/  and wandb/ if asked for
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from training import checkpoint
from training.home import Home
from training.mails import load
from training.provenance import provenance
from training.recorder import Recorder
from training.run import Run
from training.stages import Stages
from training.status import Status
from training.trackers.wandb import check
from training.tracking import TrackingError
from training.trainer import train_run
from training.weights import tokenizer

if TYPE_CHECKING:
    from training.bundle import Bundle
    from training.completion import Result


def fit(run: Run, home: Home, stages: Stages) -> "Result":
    """Train, choose the best checkpoint, test it, and register it.

    Ray must be connected. What was done of `run` before is not done again: of one whose bundle
    could not be registered, that alone is left.

    Raises:
        ConfigError, SourceError: the config asks for what is not there.
        RunError: training failed; the message has the cause.
        TrackingError: the bundle is whole, but the registry does not answer.
    """
    began = time.monotonic()
    check(run.config.tracking)
    made = _unregistered(run)
    if made is not None:
        with _recorded(run, home, stages, made.provenance) as recorder:
            result = _registered(run, made, home, stages, recorder, began)
    else:
        mails = load(run.config.data, tokenizer(run.config.model.name), home, stages)
        with _recorded(run, home, stages, provenance(mails)) as recorder:
            with stages.stage("training") as stage:
                total = len(mails.rows().train)
                status = Status(stage, stages.note, run.config, total, recorder.log)
                best = train_run(run, mails, status)
                stage.update(status.closing())
            from training.completion import bundled  # transformers: not before workers train

            made = bundled(run, mails, best, home, stages, checkpoint.epochs(best.parent))
            run.amend(state="bundled")
            result = _registered(run, made, home, stages, recorder, began, status)
    checkpoint.keep_best(run.path / "checkpoints")
    return result


def _unregistered(run: Run) -> "Bundle | None":
    """The bundle of a run that has nothing left to do but to register it."""
    if run.state != "bundled":
        return None
    from training.bundle import BundleError
    from training.bundle import load as load_bundle

    try:
        return load_bundle(run.path / "bundle")
    except BundleError:
        return None


def _registered(
    run: Run,
    made: "Bundle",
    home: Home,
    stages: Stages,
    recorder: Recorder,
    began: float,
    status: Status | None = None,
) -> "Result":
    from training.completion import registered

    try:
        return registered(run, made, home, stages, recorder, began, status)
    except TrackingError as error:
        raise TrackingError(
            f"{error}; the bundle is whole at {made.path}, and registered by "
            f"`mailray train --resume --name {run.path.name}`"
        ) from error


@contextmanager
def _recorded(run: Run, home: Home, stages: Stages, tags: dict[str, str]) -> Iterator[Recorder]:
    """The run's state, here and in the trackers, follows how the block ends."""
    if run.state != "bundled":
        run = replace(run, state="running")
    run.write()
    recorder = Recorder(
        home, run.config, run.path.name, run.path, stages.note,
        tags=tags, run_id=run.tracked, found=lambda run_id: run.amend(tracked=run_id),
    )  # fmt: skip
    try:
        recorder.missed(checkpoint.epochs(run.path / "checkpoints"))
        yield recorder
    except BaseException as error:
        recorder.close("FAILED" if isinstance(error, Exception) else "KILLED")
        if Run.read(run.path).state != "bundled":
            run.amend(state="failed")
        raise
    recorder.close("FINISHED")
    run.amend(state="done")
