"""`fit`: a config in, a trained, tested and registered bundle out. `mailray train` is this.

runs/<name>/run.json      the config, the state of the run, where it is tracked
runs/<name>/bundle/       the best checkpoint as a bundle
runs/<name>/checkpoint_*  the best and the last checkpoint
runs/<name>/tensorboard/
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from safetensors.torch import load_file

from training import bundle as bundles
from training import registry
from training.bundle import Bundle
from training.config import TrainConfig
from training.evaluation import score
from training.home import Home
from training.loop import Job, train
from training.mails import Mails, load
from training.model import build, tokenizer
from training.plan import Plan
from training.progress import Listener, Message
from training.run import Run
from training.schema import ConfigError
from training.stages import Stages
from training.status import Status
from training.tracking import Tracker


class RunError(RuntimeError):
    """A run failed; the message has the cause and says what to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave."""

    name: str
    bundle: Bundle
    model: str
    version: str
    champion: bool
    mails_per_second: float
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.name,
            "bundle": self.bundle.path,
            "model": self.model,
            "version": self.version,
            "champion": self.champion,
            "mails_per_second": self.mails_per_second,
            "seconds": self.seconds,
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
        return complete(run, mails, best, home, stages, tracker, began, status.rate)


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
    rate: float,
) -> Result:
    """Bundle, test and register the best checkpoint of a run that is trained."""
    made = _bundle(run, mails, best, stages)
    tracker.log({f"test_{key}": value for key, value in made.metrics["test"].items()}, 0)
    with stages.stage("registry") as stage:
        version, champion = registry.register(home, made, tracker.run_id, run.config.tracking)
        stage.update(f"{made.name} version {version}{', now champion' if champion else ''}")
    seconds = time.monotonic() - began
    return Result(run.path.name, made, made.name, version, champion, rate, seconds)


def train_run(
    run: Run, mails: Mails, on_message: Callable[[Message], None] | None, **extra: Any
) -> Path:
    """Train from where `run` stands to its end; returns the best checkpoint's directory."""
    config = run.config
    _room(config)
    # A report, and the end of a run, wait for the controller's next look: two seconds by default.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
    plan = Plan(
        mails.rows(),
        config.batching.size,
        config.batching.window,
        config.seed,
        config.optimizer.epochs,
    )
    scaling = config.scaling
    with Listener(on_message) as listener:
        job = Job(config, plan, mails.cache.path, listener.board)
        trainer = TorchTrainer(
            lambda: train(job),
            scaling_config=ScalingConfig(
                num_workers=scaling.workers,
                use_gpu=scaling.gpu,
                resources_per_worker={"CPU": scaling.cpus} | ({"GPU": 1} if scaling.gpu else {}),
            ),
            run_config=RunConfig(
                name=run.path.name,
                storage_path=str(run.path.parent),
                failure_config=FailureConfig(max_failures=scaling.max_failures),
                checkpoint_config=CheckpointConfig(
                    num_to_keep=1,
                    checkpoint_score_attribute="val_loss",
                    checkpoint_score_order="min",
                ),
                **extra,
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise RunError(
                f"training failed: {_cause(error)}; mend it and continue with --resume"
            ) from error
    best = min(result.best_checkpoints or [], key=lambda pair: pair[1]["val_loss"], default=None)
    if best is None:
        raise RunError("training ended without a checkpoint")
    return Path(best[0].path)


def _bundle(run: Run, mails: Mails, checkpoint: Path, stages: Stages) -> Bundle:
    """The bundle of a checkpoint, with the metrics of validation and test in it."""
    config = run.config
    model = build(config.model, len(config.data.labels), config.data.max_length)
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    words = tokenizer(config.model.name)
    place = run.path / "bundle"
    bundles.save(place, model, words, config, version=run.path.name, metrics={})
    metrics = {}
    with stages.stage("evaluation") as stage:
        both = np.concatenate([mails.on("validation"), mails.on("test")])
        scored = score(
            place, mails.cache, both, config.data.labels,
            config.scaling.precision, config.scaling.workers,
            lambda done: stage.update(f"{done:,} of {len(both):,} mails", done, len(both)),
        )  # fmt: skip
        cut = len(mails.on("validation"))
        for name, part in (("validation", slice(None, cut)), ("test", slice(cut, None))):
            scored_part = replace(
                scored, ids=scored.ids[part], truth=scored.truth[part], scores=scored.scores[part]
            )
            metrics[name] = scored_part.report(config.data.labels)
        test = metrics["test"]
        stage.update(
            f"{len(mails.on('test')):,} test mails: accuracy {test['accuracy']:.4f}, "
            f"ROC AUC {test['roc_auc']:.4f}"
        )
    return bundles.save(place, model, words, config, version=run.path.name, metrics=metrics)


def _room(config: TrainConfig) -> None:
    """Refuse what would wait for ever: workers on every CPU leave none for Ray Data."""
    have = ray.cluster_resources()
    need = config.scaling.workers * config.scaling.cpus + 1
    if have.get("CPU", 0) < need:
        raise ConfigError(
            f"scaling: {config.scaling.workers} workers of {config.scaling.cpus} CPUs and Ray Data "
            f"need {need} CPUs, the cluster has {have.get('CPU', 0):g}; "
            "lower scaling.workers or scaling.cpus"
        )
    if config.scaling.gpu and have.get("GPU", 0) < config.scaling.workers:
        raise ConfigError(
            f"scaling.gpu: {config.scaling.workers} GPUs are needed, "
            f"the cluster has {have.get('GPU', 0):g}"
        )


def _cause(error: TrainingFailedError) -> str:
    """The innermost reason, in one line."""
    failures: Sequence[BaseException] = []
    if isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    elif isinstance(error, ControllerError):
        failures = [error.controller_failure]
    cause: BaseException = failures[0] if failures else error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None:
        cause = inner
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else 'no message'}"
