"""A study: many trials of one training config, each the same `train_run` as `mailray train`.

runs/<study>/trials/<id>/   each trial's checkpoints
runs/<study>/bundle/        the best trial's bundle, registered
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from training import checkpoint
from training.completion import Result, complete
from training.config import TrainConfig
from training.home import Home
from training.mails import Mails, load
from training.run import Run, RunNameError
from training.schema import validate
from training.stages import Quiet, Stage, Stages
from training.tracking import Tracker
from training.trainer import RunError, train_run
from training.weights import tokenizer
from tuning.config import Axis, StudyConfig


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the space and what came of it."""

    id: str
    settings: dict[str, Any]
    metric: float | None
    """Of its best epoch; None where the trial failed."""
    epochs: int
    seconds: float
    error: str | None
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All trials, best first, and the best one's model."""

    name: str
    metric: str
    trials: list[Trial]
    best: Result

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "metric": self.metric,
            "trials": [asdict(trial) for trial in self.trials],
            "best": self.best.facts(),
        }


def search(
    study: StudyConfig, config: TrainConfig, home: Home, stages: Stages, name: str | None = None
) -> StudyResult:
    """Run every trial, then bundle, test and register the best. Ray must be connected.

    Raises:
        ConfigError, SourceError: as `training.fit.fit`.
        RunNameError: the study exists.
        RunError: no trial succeeded.
    """
    began = time.monotonic()
    path = home.runs / (name or f"study-{study.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if path.exists():
        raise RunNameError(f"study {path.name} exists; choose another --name")
    mails = load(config.data, tokenizer(config.model.name), home, stages)
    parent = Tracker(home, config, path.name, path / "tensorboard")
    try:
        with stages.stage("study") as stage:
            trials = _run(study, config, mails, path, stage)
        _record(trials, config, study, home, path, parent.run_id)
        if trials[0].checkpoint is None:
            raise RunError(f"every trial of {path.name} failed, the first with {trials[0].error}")
        winner = Run(path, _with(config, trials[0].settings))
        best = complete(winner, mails, Path(trials[0].checkpoint), home, stages, parent, began)
    except BaseException as error:
        parent.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    parent.finish("FINISHED")
    return StudyResult(path.name, study.metric, trials, best)


def _run(
    study: StudyConfig, config: TrainConfig, mails: Mails, path: Path, stage: Stage
) -> list[Trial]:
    """All trials, best first, failed ones last."""
    shared = ray.put(mails)
    place = str(path / "trials")

    def trial(settings: dict[str, Any]) -> None:
        run = Run(Path(place, tune.get_context().get_trial_id()), _with(config, settings))
        train_run(run, ray.get(shared), None, [TuneReportCallback()])
        checkpoint.keep_best(run.path / "checkpoints")

    at_once = min(study.concurrent, _room(config))
    search_alg, space = searcher(study, at_once)
    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.1}),  # its workers have the CPUs; none is refused
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=1 if study.searcher == "grid" else study.trials,
            search_alg=search_alg,
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(path),
            verbose=0,
            callbacks=[_Watch(stage, study, config.optimizer.epochs)],
        ),
    ).fit()
    trials = [_trial(study, results[i], Path(place)) for i in range(len(results))]
    worst = float("inf")
    sign = 1 if study.mode == "min" else -1
    return sorted(trials, key=lambda t: worst if t.metric is None else sign * t.metric)


def _trial(study: StudyConfig, result: Any, folder: Path) -> Trial:
    metrics = result.metrics or {}
    id_ = metrics.get("trial_id", "?")
    table = result.metrics_dataframe
    best: dict[str, Any] = {}
    if table is not None and len(table) and result.error is None:
        # Of each trial the weights with the lowest validation loss are kept.
        best = table.sort_values("val_loss").iloc[0].to_dict()
    kept = checkpoint.best(folder / id_ / "checkpoints") if best else None
    return Trial(
        id=id_,
        settings=dict(result.config or {}),
        metric=best.get(study.metric),
        epochs=len(table) if table is not None else 0,
        seconds=float(metrics.get("time_total_s", 0.0)),
        error=str(result.error).strip().splitlines()[-1] if result.error else None,
        checkpoint=str(kept) if kept else None,
    )


def searcher(study: StudyConfig, at_once: int) -> tuple[Any, dict[str, Any]]:
    """What draws the points for Tune, and the space in its words."""
    space = {key: _domain(axis) for key, axis in study.space.items()}
    if study.searcher == "grid":
        return None, space
    if study.searcher == "random":
        from ray.tune.search import BasicVariantGenerator

        # Of this one alone Tune does not take `max_concurrent_trials`.
        return BasicVariantGenerator(random_state=study.seed, max_concurrent=at_once), space
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(metric=study.metric, mode=study.mode, seed=study.seed), space


def _domain(axis: Axis) -> Any:
    if axis.grid is not None:
        return tune.grid_search(list(axis.grid))
    if axis.choice is not None:
        return tune.choice(list(axis.choice))
    if axis.uniform is not None:
        return tune.uniform(*axis.uniform)
    assert axis.loguniform is not None
    return tune.loguniform(*axis.loguniform)


def _with(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    return validate(
        TrainConfig,
        config.model_dump(mode="json"),
        [f"{key}={value!r}" for key, value in settings.items()],
    )


def _room(config: TrainConfig) -> int:
    """Trials whose workers fit on the cluster with one CPU left for Ray Data."""
    each = config.scaling.fewest * config.scaling.cpus
    return max(1, (int(ray.cluster_resources().get("CPU", 0)) - 1) // each)


def _record(
    trials: list[Trial],
    config: TrainConfig,
    study: StudyConfig,
    home: Home,
    path: Path,
    parent: str,
) -> None:
    """Each trial as a run below the study's, in the tracker."""
    for trial in trials:
        folder = path / "trials" / trial.id / "tensorboard"
        tracker = Tracker(home, _with(config, trial.settings), trial.id, folder, parent=parent)
        if trial.metric is not None:
            tracker.log({study.metric: trial.metric, "seconds": trial.seconds}, trial.epochs)
        tracker.finish("FAILED" if trial.error else "FINISHED")


class _Watch(tune.Callback):
    """Says where the study stands, at each result of each trial."""

    def __init__(self, stage: Stage, study: StudyConfig, epochs: int) -> None:
        self.stage, self.study = stage, study
        self.epochs = {"total": study.points * epochs, "each": epochs}
        self.done: dict[str, int] = {}
        self.ended: set[str] = set()
        self.best: tuple[float, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks down for those who restore a study, which nobody does here; the
        # stage is a terminal's, and cannot be written.
        return self.__dict__ | {"stage": Quiet()}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One more epoch of a trial."""
        self.done[trial.trial_id] = self.done.get(trial.trial_id, 0) + 1
        value = result.get(self.study.metric)
        better = min if self.study.mode == "min" else max
        if value is not None:
            settings = ", ".join(_settings(trial.config))
            self.best = better(self.best or (value, settings), (value, settings))
        self._say()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended; epochs that it was spared count as done."""
        self.ended.add(trial.trial_id)
        self.done[trial.trial_id] = self.epochs["each"]
        self._say()

    on_trial_error = on_trial_complete

    def _say(self) -> None:
        best = (
            f", best {self.study.metric} {self.best[0]:.4f} ({self.best[1]})" if self.best else ""
        )
        self.stage.update(
            f"{len(self.ended)} of {self.study.points} trials{best}",
            sum(self.done.values()),
            self.epochs["total"],
        )


def _settings(settings: dict[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
