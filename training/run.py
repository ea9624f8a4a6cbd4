"""A run: its directory, its name, and what `run.json` says of it."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from training.config import TrainConfig
from training.home import Home

RUN_FILE = "run.json"
_AMENDING = Lock()


class RunNameError(ValueError):
    """There is a run of that name already, or none that could be resumed."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: what `run.json` says, and its directory."""

    path: Path
    config: TrainConfig
    state: Literal["running", "failed", "bundled", "done"] = "running"
    """`bundled`: what is left to do is to register the bundle."""
    tracked: str | None = None
    """Its run id in MLflow."""

    def write(self) -> None:
        """Put `run.json` in place as a whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        facts = {
            "config": self.config.model_dump(mode="json"),
            "state": self.state,
            "tracked": self.tracked,
        }
        scratch = self.path / f".{RUN_FILE}"
        scratch.write_text(json.dumps(facts, indent=2), "utf-8")
        scratch.replace(self.path / RUN_FILE)

    def amend(self, **changes: Any) -> None:
        """Change some of what `run.json` says; the tracker's thread does so too."""
        with _AMENDING:
            replace(Run.read(self.path), **changes).write()

    @classmethod
    def read(cls, path: Path) -> "Run":
        """The run in a directory."""
        try:
            facts = json.loads((path / RUN_FILE).read_text("utf-8"))
            return cls(
                path, TrainConfig.model_validate(facts["config"]), facts["state"], facts["tracked"]
            )
        except (OSError, ValueError, KeyError) as error:
            raise RunNameError(f"{path} is no run that can be resumed: {error}") from error


def new_run(home: Home, config: TrainConfig, name: str | None) -> Run:
    """A run that is not there yet.

    Raises:
        RunNameError: it is there.
    """
    path = home.runs / (name or f"{config.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if path.exists():
        raise RunNameError(
            f"run {path.name} exists; continue it with --resume, or choose another --name"
        )
    return Run(path, config)


def unfinished_run(home: Home, config: TrainConfig | None, name: str | None) -> Run:
    """The run of that name, or the latest unfinished one with the same config; None is any.

    Raises:
        RunNameError: there is none, or it was started with another config.
    """
    if name is None:
        found = [Run.read(file.parent) for file in home.runs.glob(f"*/{RUN_FILE}")]
        open_runs = [run for run in found if run.state != "done" and config in (None, run.config)]
        if not open_runs:
            raise RunNameError(
                "no unfinished run with this config is here; start one without --resume"
            )
        return max(open_runs, key=lambda run: (run.path / RUN_FILE).stat().st_mtime)
    if not (home.runs / name).is_dir():
        raise RunNameError(f"no run {name} in {home.runs}; start it without --resume")
    run = Run.read(home.runs / name)
    if run.state == "done":
        raise RunNameError(f"run {name} is finished; choose another --name for a new one")
    if config not in (None, run.config):
        raise RunNameError(
            f"run {name} was started with another config; resume it with the same one"
        )
    return run
