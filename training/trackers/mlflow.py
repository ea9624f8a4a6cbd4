"""A run in MLflow; https://mlflow.org/docs/latest/ml/tracking has what its terms mean."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from training.home import Home
from training.trackers.outbox import Outbox
from training.tracking import State, TrackingError, answers, client, experiment_id

Row = tuple[str, str] | tuple[str, float, int, int]
_ARGUMENTS: Final = {"Param": "params", "RunTag": "tags", "Metric": "metrics"}
_EPOCH: Final = "val_loss"
"""What every epoch has, and nothing else."""
_LONGEST: Final = 5000
"""Characters of a parameter or tag; MLflow takes 6,000."""


class MLflowRun:
    """One run in MLflow; made as soon as MLflow answers, and told to `found` then.

    With `run_id` an earlier run goes on; with `parent` it stands below another, which shares its
    outbox.
    """

    def __init__(
        self,
        home: Home,
        experiment: str,
        name: str,
        outbox: Outbox,
        run_id: str | None = None,
        parent: "MLflowRun | None" = None,
        found: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.home, self.experiment, self.name = home, experiment, name
        self.outbox, self.parent, self.found = outbox, parent, found
        self.run_id = run_id
        self.client: Any = None
        """None before the run is begun, and where that was refused."""
        self.unknown: TrackingError | None = None
        """MLflow has no run of that id."""
        outbox.put(self._begin)

    def params(self, values: dict[str, str]) -> None:
        """As Tracker says."""
        self._batch("Param", [(key, value[:_LONGEST]) for key, value in values.items()])

    def tags(self, values: dict[str, str]) -> None:
        """As Tracker says; the commit also where MLflow's pages look for it."""
        if commit := values.get("commit"):
            values = values | {"mlflow.source.git.commit": commit.partition("-")[0]}
        self._batch("RunTag", [(key, value[:_LONGEST]) for key, value in values.items()])

    def log(self, metrics: dict[str, float], step: int) -> None:
        """As Tracker says."""
        now = int(time.time() * 1000)
        self._batch("Metric", [(key, value, now, step) for key, value in metrics.items()])

    def missed(self, rows: dict[int, dict[str, float]]) -> None:
        """Metrics of earlier commands, by mails seen, where MLflow has none at that count."""

        def log(told: Any, run: str) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            known = {metric.step for metric in told.get_metric_history(run, _EPOCH)}
            for step in rows.keys() - known:
                made = [Metric(key, value, now, step) for key, value in rows[step].items()]
                told.log_batch(run, metrics=made)

        if rows:
            self._tell(log)

    def artifact(self, file: Path) -> None:
        """As Tracker says."""
        self._tell(lambda told, run: told.log_artifact(run, str(file)))

    def finish(self, state: State) -> None:
        """As Tracker says."""
        self._tell(lambda told, run: told.set_terminated(run, state))

    def _batch(self, kind: Literal["Param", "RunTag", "Metric"], rows: Sequence[Row]) -> None:
        """All in one call; made into MLflow's own objects there, where MLflow is imported."""

        def log(told: Any, run: str) -> None:
            from mlflow import entities

            made = [getattr(entities, kind)(*row) for row in rows]
            told.log_batch(run, **{_ARGUMENTS[kind]: made})

        self._tell(log)

    def _tell(self, call: Callable[[Any, str], object]) -> None:
        def told() -> None:
            if self.client is not None and self.run_id is not None:
                answers(self.home)
                call(self.client, self.run_id)

        self.outbox.put(told)

    def _begin(self) -> None:
        told = client(self.home)
        if self.run_id is None:
            tags = {"mlflow.parentRunId": above} if (above := self._above()) else {}
            experiment = experiment_id(self.home, told, self.experiment)
            self.run_id = told.create_run(experiment, run_name=self.name, tags=tags).info.run_id
            self.found(str(self.run_id))
        else:
            from mlflow.exceptions import MlflowException

            try:
                told.update_run(self.run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.unknown = TrackingError(
                    f"MLflow at {self.home.tracker} does not know run {self.run_id} of "
                    f"{self.name}; set MLFLOW_TRACKING_URI to where it was begun"
                )
                return
        self.client = told

    def _above(self) -> str | None:
        return self.parent.run_id if self.parent is not None else None
