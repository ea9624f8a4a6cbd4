"""`fit`: a config in, a trained, tested and registered bundle out. `mailray train` is this.

runs/<name>/run.json      the config, the state of the run, where it is tracked
runs/<name>/bundle/       the best checkpoint as a bundle
runs/<name>/checkpoints/  see training/checkpoint.py; of a finished run, the best one's weights
runs/<name>/tensorboard/
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from training import bundle as bundles
from training import registry
from training.bundle import Bundle
from training.checkpoint import MODEL, keep_best, weights_digest
from training.evaluation import score
from training.home import Home
from training.mails import Mails, load
from training.model import build, tokenizer
from training.run import Run
from training.stages import Stages
from training.status import Status
from training.tracking import Tracker
from training.trainer import train_run


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave."""

    name: str
    bundle: Bundle
    model: str
    version: str
    champion: bool
    weights: str
    """SHA-256 of the best checkpoint's weights."""
    mails_per_second: float
    seconds: float
    epochs: list[dict[str, Any]]
    """A row for each that this command trained: losses, validation metrics, seconds."""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.name,
            "bundle": self.bundle.path,
            "model": self.model,
            "version": self.version,
            "champion": self.champion,
            "weights": self.weights,
            "mails_per_second": self.mails_per_second,
            "seconds": self.seconds,
            "epochs": self.epochs,
            "metrics": self.bundle.metrics,
        }


def fit(run: Run, home: Home, stages: Stages) -> Result:
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
            status = Status(stage, stages.note, run.config, len(mails.on("train")), tracker.log)
            best = train_run(run, mails, status)
            stage.update(status.closing())
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


def complete(
    run: Run,
    mails: Mails,
    best: Path,
    home: Home,
    stages: Stages,
    tracker: Tracker,
    began: float,
    status: Status | None = None,
) -> Result:
    """Bundle, test and register the best checkpoint of a run that is trained."""
    made = _bundle(run, mails, best, stages)
    tracker.log({f"test_{key}": value for key, value in made.metrics["test"].items()}, 0)
    with stages.stage("registry") as stage:
        version, champion = registry.register(home, made, tracker.run_id, run.config.tracking)
        stage.update(f"{made.name} version {version}{', now champion' if champion else ''}")
    seconds = time.monotonic() - began
    return Result(
        name=run.path.name,
        bundle=made,
        model=made.name,
        version=version,
        champion=champion,
        weights=weights_digest(best),
        mails_per_second=status.rate if status else 0.0,
        seconds=seconds,
        epochs=status.history if status else [],
    )


def _bundle(run: Run, mails: Mails, checkpoint: Path, stages: Stages) -> Bundle:
    """The bundle of a checkpoint, with the metrics of validation and test in it."""
    config = run.config
    model = build(
        config.model, len(config.data.labels), config.data.max_length,
        multi=config.data.multi_label,
    )  # fmt: skip
    model.load_state_dict(load_file(checkpoint / MODEL))
    words = tokenizer(config.model.name)
    place = run.path / "bundle"
    bundles.save(place, model, words, config, version=run.path.name, metrics={})
    metrics = {}
    with stages.stage("evaluation") as stage:
        both = np.concatenate([mails.on("validation"), mails.on("test")])
        scored = score(
            place, mails.cache, both, config.data.label_set,
            config.scaling.precision, config.scaling.fewest,
            lambda done: stage.update(f"{done:,} of {len(both):,} mails", done, len(both)),
        )  # fmt: skip
        cut = len(mails.on("validation"))
        for name, part in (("validation", slice(None, cut)), ("test", slice(cut, None))):
            scored_part = replace(
                scored, ids=scored.ids[part], truth=scored.truth[part], scores=scored.scores[part]
            )
            metrics[name] = scored_part.report()
        test = metrics["test"]
        stage.update(
            f"{len(mails.on('test')):,} test mails: accuracy {test['accuracy']:.4f}, "
            f"ROC AUC {test['roc_auc']:.4f}"
        )
    return bundles.save(place, model, words, config, version=run.path.name, metrics=metrics)
