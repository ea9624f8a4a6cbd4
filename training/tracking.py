"""Tracking: what a run does, told to those who keep it; by the driver alone.

Each of `training/trackers` is a Tracker; `training.recorder` tells them all. A tracker that is down
stops no run: what it misses waits for it in an outbox.
"""

import os
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, Protocol

from training.home import Home

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Seven by default, which takes four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

_IMPORTING: Final = Lock()
"""Two threads must not import MLflow at once: its modules need each other."""
ANSWER_SECONDS: Final = 5.0
State = Literal["FINISHED", "FAILED", "KILLED"]


class TrackingError(RuntimeError):
    """The tracking server or the registry does not do what is asked of it."""


class Tracker(Protocol):
    """One run, as one tracker keeps it; no call waits for a server, or raises because of one."""

    def params(self, values: dict[str, str]) -> None:
        """The settings, by their dotted keys."""

    def tags(self, values: dict[str, str]) -> None:
        """What is known of the run besides: of code, machine and mail."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Finite numbers, at a count of mails seen."""

    def artifact(self, file: Path) -> None:
        """A file that goes with the run and stays where it is."""

    def finish(self, state: State) -> None:
        """The run has ended."""


def client(home: Home) -> Any:
    """A client of the MLflow server or file that `home` names.

    Raises:
        TrackingError: it cannot be reached or opened.
    """
    answers(home)
    with _IMPORTING:
        from mlflow import MlflowClient  # three seconds, which `mailray --help` need not take
        from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient(home.tracking_uri, home.tracking_uri)
        found.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise _silent(home, error) from error
    return found


def experiment_id(home: Home, mlflow: Any, name: str) -> str:
    """That of the experiment of a name, made if there is none; raises MlflowException."""
    if (known := mlflow.get_experiment_by_name(name)) is not None:
        return str(known.experiment_id)
    local = home.tracking_uri.startswith("sqlite:")
    place = (home.artifacts / name).as_uri() if local else None
    return str(mlflow.create_experiment(name, artifact_location=place))


def answers(home: Home) -> None:
    """Ask the MLflow server, if it is one, for a sign of life: its own client waits for minutes.

    Raises:
        TrackingError: there is none within five seconds.
    """
    if not home.tracking_uri.startswith(("http:", "https:")):
        return
    import httpx

    try:
        # Nothing is told to it, so it need not show who it is.
        said = httpx.get(f"{home.tracker.rstrip('/')}/health", timeout=ANSWER_SECONDS, verify=False)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _silent(home, error) from error
    if said.is_server_error:
        raise _silent(home, f"{said.status_code} {said.reason_phrase}")


def _silent(home: Home, reason: object) -> TrackingError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return TrackingError(f"MLflow at {home.tracker} does not answer: {lines[0]}")
