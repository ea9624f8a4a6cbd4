"""Tracking: what a run does, to MLflow and to TensorBoard files; written by the driver."""

import math
import os
import time
from pathlib import Path
from typing import Any, Literal

from tensorboardX import SummaryWriter

from training.config import TrainConfig
from training.home import Home

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


class TrackingError(RuntimeError):
    """The tracking server or the registry does not do what is asked of it."""


def client(home: Home) -> Any:
    """A client of the MLflow server or file that `home` names.

    Raises:
        TrackingError: it cannot be reached or opened.
    """
    from mlflow import MlflowClient  # three seconds, which `mailray --help` need not take
    from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient(home.tracking_uri, home.tracking_uri)
        found.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(f"MLflow at {home.tracking_uri} does not answer: {reason}") from error
    return found


class Tracker:
    """One run in MLflow, and its TensorBoard files in `folder`.

    With `run_id` an earlier run goes on; with `parent` it stands below another.
    """

    def __init__(
        self,
        home: Home,
        config: TrainConfig,
        name: str,
        folder: Path,
        run_id: str | None = None,
        parent: str | None = None,
    ) -> None:
        self.client = client(home)
        self.board = SummaryWriter(str(folder), flush_secs=5)
        if run_id is None:
            experiment = self._experiment(home, config.tracking.experiment)
            tags = {"mlflow.parentRunId": parent} if parent else {}
            run_id = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
            from mlflow.entities import Param

            params = [Param(*row) for row in _flat(config.model_dump(mode="json"))]
            self.client.log_batch(run_id, params=params)  # one call, not fifty
        else:
            from mlflow.exceptions import MlflowException

            try:
                self.client.update_run(run_id, status="RUNNING")
            except MlflowException as error:
                raise TrackingError(
                    f"MLflow at {home.tracking_uri} does not know run {run_id} of {name}; set "
                    "MLFLOW_TRACKING_URI to where it was begun"
                ) from error
        self.run_id: str = run_id

    def _experiment(self, home: Home, name: str) -> str:
        if (known := self.client.get_experiment_by_name(name)) is not None:
            return str(known.experiment_id)
        local = home.tracking_uri.startswith("sqlite:")
        place = (home.artifacts / name).as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Numbers at a count of mails seen; what is no number is left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        told = []
        for key, value in metrics.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not math.isnan(value):  # as an AUC where a label is absent
                self.board.add_scalar(key, value, step)
                told.append(Metric(key, float(value), now, step))
        self.client.log_batch(self.run_id, metrics=told)  # one call, not ten

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close the run."""
        self.board.close()
        self.client.set_terminated(self.run_id, status)


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        rows += (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(prefix + key, str(value))]
        )
    return rows
