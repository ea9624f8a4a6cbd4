"""A study: many trials of one training config, each the same `train_run` as `mailray train`.

runs/<study>/study.json     its configs, and whether it is done
runs/<study>/study.db       the ledger: every trial, its settings and results
runs/<study>/trials/<n>/    what a trial wrote; checkpoints only of those that may be the best
runs/<study>/best.yaml      the best settings, for `mailray train --config`
runs/<study>/report.html
runs/<study>/bundle/        the best trial's bundle, registered
"""

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ray import tune

from training import checkpoint
from training.completion import Result, complete
from training.config import TrainConfig
from training.home import Home
from training.mails import Mails
from training.progress import Listener
from training.provenance import provenance
from training.recorder import Recorder
from training.run import Run, RunNameError
from training.schema import ConfigError, validate
from training.stages import Stages
from training.trainer import RunError, train_run
from tuning.adapters import Deaths, Draws, Verdicts
from tuning.answers import Point, cost, points, winner
from tuning.config import StudyConfig
from tuning.corpora import Corpora, key, load_all
from tuning.course import Course
from tuning.ledger import Ledger
from tuning.record import Record, alone, amend
from tuning.report import write
from tuning.room import clear, room
from tuning.space import point_of
from tuning.trainable import run_trial
from tuning.trial import Trial, folder, settled


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All points, best first, and the best one's model."""

    name: str
    objective: dict[str, str]
    points: list[Point]
    cost: dict[str, float]
    importance: dict[str, float]
    recipe: Path
    """The best settings, as `mailray train --config` takes them."""
    report: Path
    best: Result

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "objective": self.objective,
            "points": [point.facts() for point in self.points],
            "cost": self.cost,
            "importance": self.importance,
            "recipe": self.recipe,
            "report": self.report,
            "best": self.best.facts(),
        }


def search(record: Record, home: Home, stages: Stages) -> StudyResult:
    """Run the trials that are left, then bundle, test and register the best. Ray must be connected.

    Raises:
        ConfigError, SourceError: as `training.fit.fit`, or the cluster has no room for a trial.
        RunNameError: another command has the study.
        RunError: no trial came to its end.
    """
    began = time.monotonic()
    config, path = record.config, record.path
    learned = Record.read(home.runs / record.study.warm_start) if record.study.warm_start else None
    at_once = room(record.study)
    mails = load_all(config, record.study.space, home, stages)
    _enough(record, mails)
    fresh = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with alone(path):
        record.write()
        parent = Recorder(
            home, config, path.name, path, stages.note,
            tags=provenance(next(iter(mails.values()))), run_id=record.tracked,
            found=lambda run_id: amend(path, tracked=run_id),
        )  # fmt: skip
        try:
            baseline = point_of(record.study.space, config.model_dump(mode="json"))
            ledger = Ledger(path, record.study, config.optimizer.epochs, baseline)
            if learned is not None and fresh:
                told = ledger.learn(learned.path.name, Ledger(learned.path, learned.study).trials())
                stages.note(f"learned from {told} trials of {learned.path.name}")
            _run(record, ledger, mails, home, stages, parent, at_once)
            result = _result(record, ledger, mails, home, stages, parent, began)
        except BaseException as error:
            parent.close("FAILED" if isinstance(error, Exception) else "KILLED")
            stages.note(f"what was done is kept; go on with: mailray tune --resume {path.name}")
            raise
        parent.close("FINISHED")
        amend(path, done=True)
    return result


def _run(
    record: Record,
    ledger: Ledger,
    mails: Corpora,
    home: Home,
    stages: Stages,
    parent: Recorder,
    at_once: int,
) -> None:
    """All trials that are left."""
    path, study = record.path, record.study
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the command
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger has it all
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # nor is Tune's state read again
    with stages.stage("study") as stage:
        course = Course(
            ledger, record.config, path, home, parent,
            lambda config: provenance(mails[key(config)]), stage, stages.note,
        )  # fmt: skip
        draws = Draws(course)
        shutil.rmtree(path / "tune", ignore_errors=True)
        with Listener(course.message) as listener:
            trainable = tune.with_parameters(
                run_trial, mails=mails, config=record.config, study=path, board=listener.board
            )
            try:
                tune.Tuner(
                    tune.with_resources(trainable, _resources(study)),
                    tune_config=tune.TuneConfig(
                        num_samples=-1,
                        search_alg=draws,
                        scheduler=Verdicts(course),
                        max_concurrent_trials=at_once,
                        # Of one worker: it has PyTorch, and trains the next trial at once.
                        reuse_actors=study.resources.workers == 1,
                    ),
                    run_config=tune.RunConfig(
                        name="tune",
                        storage_path=str(path),
                        verbose=0,
                        failure_config=tune.FailureConfig(record.config.scaling.max_failures),
                        callbacks=[Deaths(course)],
                    ),
                ).fit()
            finally:
                course.close()
                clear()
        shutil.rmtree(path / "tune", ignore_errors=True)


def _resources(study: StudyConfig) -> dict[str, float]:
    """Of a trial's own process."""
    each = study.resources
    if each.workers > 1:
        return {"CPU": 0.1}  # its workers have the rest, as Ray Train places them
    return {"CPU": each.cpus} | ({"GPU": each.gpus} if each.gpus else {})


def _result(
    record: Record,
    ledger: Ledger,
    corpora: Corpora,
    home: Home,
    stages: Stages,
    parent: Recorder,
    began: float,
) -> StudyResult:
    """The answers, and the best trial's model, bundled, tested and registered."""
    study, path = record.study, record.path
    trials = ledger.trials()
    ranked = points(trials, study.directions)
    best = winner(ranked, study.directions)
    if best is None:
        reasons = [trial.reason for trial in trials if trial.reason]
        why = f"; the first: {reasons[0]}" if reasons else ""
        raise RunError(f"no trial of {path.name} came to its end{why}")
    config = settled(record.config, best.settings, best.seed)
    mails = corpora[key(config)]
    kept, course = _weights(record, best, mails, stages), best.course
    if study.retrain:
        config = _again(config, best)
        mails = replace(mails, with_validation=True)
        with stages.stage("training again, validation mails too"):
            kept = train_run(_retrained(path / "retrained", config), mails)
        course = checkpoint.epochs(path / "retrained" / "checkpoints")
    recipe = path / "best.yaml"
    recipe.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "utf-8")
    shutil.rmtree(path / "bundle", ignore_errors=True)
    made = complete(Run(path, config), mails, kept, home, stages, parent, began, epochs=course)
    each = study.resources
    _, full = study.planned(record.config.optimizer.epochs)
    spent = cost(trials, full, each.workers * each.cpus, each.workers * each.gpus)
    parent.log({f"study_{key}": value for key, value in spent.items()}, 0)
    importance = ledger.importance()
    report = write(path, study, ledger, ranked, spent, importance, made)
    parent.artifact(report)
    return StudyResult(
        path.name, dict(study.directions), ranked, spent, importance, recipe, report, made
    )


def _weights(record: Record, best: Trial, mails: Mails, stages: Stages) -> Path:
    """The best trial's checkpoint; trained again, to the same weights, where it was removed."""
    place = folder(record.path, best.number)
    if (kept := checkpoint.best(place / "checkpoints")) is not None:
        return kept
    with stages.stage(f"training trial {best.number} again"):
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return train_run(Run(place, settled(record.config, best.settings, best.seed)), mails)


def _retrained(path: Path, config: TrainConfig) -> Run:
    """The run of the best settings, begun anew unless an earlier command began this one."""
    run = Run(path, config)
    try:
        if Run.read(path).config == config:
            return run
    except RunNameError:
        pass
    shutil.rmtree(path, ignore_errors=True)
    run.write()
    return run


def _again(config: TrainConfig, best: Trial) -> TrainConfig:
    """With the validation mails to train on, and as many epochs as were best without them."""
    epochs = int(best.best["epoch"])
    changes = ["data.with_validation=true", f"optimizer.epochs={epochs}",
               f"optimizer.patience={epochs}"]  # fmt: skip
    return validate(TrainConfig, config.model_dump(mode="json"), changes)


def _enough(record: Record, corpora: Corpora) -> None:
    """Refuse batches that are larger than the data, and metrics that it cannot have."""
    train = min(len(mails.on("train")) for mails in corpora.values())
    axis = record.study.space.get("batching.size")
    sizes = [record.config.batching.size, *(axis.examples if axis else ())]
    if max(sizes) > train and record.config.batching.tokens is None:
        where = "space: batching.size" if axis and max(sizes) in axis.examples else "batching.size"
        raise ConfigError(f"{where} {max(sizes)} is more than the {train} mails to train on")
    labels = record.config.data.label_set
    few = [metric for metric in record.study.directions if "recall_at_fpr" in metric]
    if few and (labels.multi or len(labels.names) != 2):
        raise ConfigError(f"objective: {few[0]} needs two data.labels, of which a mail has one")
