"""The recorder of a run: all its trackers as one, none of which can stop it or hold it up.

    recorder = Recorder(home, config, name, folder, note)
    recorder.log({"loss": 0.1}, seen)
    recorder.close("FINISHED")

<folder>/config.yaml     the resolved config
<folder>/tensorboard/    and <folder>/wandb/ with `tracking.wandb`
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from training.config import TrainConfig
from training.home import Home
from training.trackers import wandb
from training.trackers.mlflow import MLflowRun
from training.trackers.outbox import Outbox
from training.trackers.tensorboard import TensorBoard
from training.trackers.wandb import WandbRun
from training.tracking import State, Tracker, TrackingError, client

START_SECONDS: Final = 20.0
"""How long a run waits, at most, for its trackers' first word."""
END_SECONDS: Final = 30.0
"""And for its last things to be told, unless it is known that nobody answers."""


class Recorder:
    """One run, told to MLflow, to TensorBoard's files, and to Weights & Biases if asked for.

    With `run_id` an earlier run of MLflow goes on; with `parent` the run stands below another, and
    shares what waits for a tracker. `found` gets the id that MLflow gives a new run, maybe late.

    Raises:
        TrackingError: MLflow answers, but has no run of that id.
    """

    def __init__(
        self,
        home: Home,
        config: TrainConfig,
        name: str,
        folder: Path,
        note: Callable[[str], None],
        *,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        parent: "Recorder | None" = None,
        found: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.home, self.own = home, parent is None
        experiment = config.tracking.experiment
        above: MLflowRun | None = parent.mlflow if parent else None
        self.outboxes: dict[str, Outbox] = (
            parent.outboxes if parent else _outboxes(home, config, note)
        )
        self.mlflow: MLflowRun = MLflowRun(
            home, experiment, name, self.outboxes["mlflow"], run_id, above, found
        )
        self.trackers: list[Tracker] = [self.mlflow, TensorBoard(folder / "tensorboard")]
        if "wandb" in self.outboxes:
            group = parent.mlflow.name if parent else None
            self.trackers.append(
                WandbRun(experiment, name, folder, self.outboxes["wandb"], note, group)
            )
        tree = config.model_dump(mode="json")
        if run_id is None:
            file = folder / "config.yaml"
            file.write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
            self._each(lambda tracker: tracker.params(dict(_flat(tree))))
            self.artifact(file)
        self._each(lambda tracker: tracker.tags(dict(tags or {})))
        if self.own:
            self.outboxes["mlflow"].settle(START_SECONDS)
            if self.mlflow.unknown is not None:
                self._leave(0.0)
                raise self.mlflow.unknown

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Numbers at a count of mails seen; what is no finite number is left out."""
        kept = _numbers(metrics)
        self._each(lambda tracker: tracker.log(kept, step))

    def artifact(self, file: Path) -> None:
        """A file that goes with the run and stays where it is."""
        self._each(lambda tracker: tracker.artifact(file))

    def missed(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Epochs, as `training.checkpoint.epochs` has them, of which MLflow has not heard yet."""
        rows = {int(row["seen"]): {k: v for k, v in row.items() if k != "seen"} for row in epochs}
        self.mlflow.missed({seen: _numbers(row) for seen, row in rows.items()})

    def tracked(self) -> str:
        """The run's id in MLflow, when MLflow has all it was told.

        Raises:
            TrackingError: MLflow does not answer, or would not make the run.
        """
        outbox = self.outboxes["mlflow"]
        outbox.settle(END_SECONDS)
        if outbox.calls or self.mlflow.run_id is None:
            client(self.home)  # knows best why it does not answer
            raise TrackingError(
                f"MLflow at {self.home.tracker} does not take the run: "
                f"{outbox.down or outbox.refusal or 'it is too slow'}"
            )
        return self.mlflow.run_id

    def close(self, state: State) -> None:
        """The run has ended; what can be told is told now, if the run is no other's."""
        self._each(lambda tracker: tracker.finish(state))
        if self.own:
            if "wandb" in self.outboxes:
                self.outboxes["wandb"].put(wandb.leave)
            self._leave(END_SECONDS)

    def _leave(self, patience: float) -> None:
        for outbox in self.outboxes.values():
            outbox.close(patience)

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in self.trackers:
            tell(tracker)


def _outboxes(home: Home, config: TrainConfig, note: Callable[[str], None]) -> dict[str, Outbox]:
    """One for each tracker that a call could wait for."""
    found = {"mlflow": Outbox(f"MLflow at {home.tracker}", note)}
    if config.tracking.wandb:
        found["wandb"] = Outbox("Weights & Biases", note)
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)  # an AUC is no number where a label is absent
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        rows += (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(prefix + key, str(value))]
        )
    return rows
