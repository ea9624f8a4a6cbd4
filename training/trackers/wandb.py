"""A run in Weights & Biases (`tracking.wandb=true`), online or as files for `wandb sync`.

runs/<name>/wandb/offline-run-*    without an API key, with WANDB_MODE=offline, or without network
"""

import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from training.config import TrackingConfig
from training.schema import ConfigError
from training.trackers.outbox import Outbox
from training.tracking import State

_SERVER: Final = "https://api.wandb.ai"
_INIT_SECONDS: Final = 20
_FINISH_SECONDS: Final = 30
_CODES: Final = {"FINISHED": 0, "FAILED": 1, "KILLED": 130}


def check(config: TrackingConfig) -> None:
    """Refuse a config that asks for what is not installed.

    Raises:
        ConfigError: as it says.
    """
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "tracking.wandb: the package wandb is not installed; "
            "pip install 'mailray[wandb]', or set tracking.wandb=false"
        )


class WandbRun:
    """One run in Weights & Biases; its files lie in `folder`."""

    def __init__(
        self,
        project: str,
        name: str,
        folder: Path,
        outbox: Outbox,
        note: Callable[[str], None],
        group: str | None = None,
    ) -> None:
        self.project, self.name, self.group = project, name, group
        self.folder, self.outbox, self.note = folder, outbox, note
        self.id = re.sub(r"[^\w-]", "-", name)[-60:]
        """The same when the run goes on."""
        self.run: Any = None
        outbox.put(self._begin)

    def params(self, values: dict[str, str]) -> None:
        """As Tracker says."""
        self._tell(lambda run: run.config.update(values, allow_val_change=True))

    def tags(self, values: dict[str, str]) -> None:
        """As Tracker says; W&B's own tags are words without values."""
        self.params(values)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """As Tracker says; not as W&B's own step, which must never go back."""
        self._tell(lambda run: run.log(metrics | {"seen": step}))

    def artifact(self, file: Path) -> None:
        """As Tracker says; W&B uploads what lies among the run's files."""

        def copy(run: Any) -> None:
            place = Path(run.dir) / "mailray"  # beside W&B's own config.yaml
            place.mkdir(exist_ok=True)
            shutil.copy(file, place / file.name)

        self._tell(copy)

    def finish(self, state: State) -> None:
        """As Tracker says."""
        self._tell(lambda run: run.finish(exit_code=_CODES[state]))

    def _tell(self, call: Callable[[Any], object]) -> None:
        def told() -> None:
            if self.run is not None:  # else it was refused
                call(self.run)

        self.outbox.put(told)

    def _begin(self) -> None:
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True,
            init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS,
        )  # fmt: skip
        wandb.setup(settings)
        mode = os.environ.get("WANDB_MODE") or ("online" if _key() else "offline")
        try:
            self.run = self._made(settings, mode, self.id)
        except (wandb.errors.CommError, wandb.errors.AuthenticationError, TimeoutError) as error:
            if mode != "online":
                raise
            reason = str(error).splitlines()[0]
            self.note(
                f"Weights & Biases does not answer: {reason}; "
                f"the run is kept in {self.folder / 'wandb'}, for `wandb sync`"
            )
            # W&B counts the id as taken by what failed.
            self.run = self._made(settings, "offline", f"{self.id}-{uuid.uuid4().hex[:4]}")
        self.run.define_metric("seen", hidden=True)
        self.run.define_metric("*", step_metric="seen")

    def _made(self, settings: Any, mode: str, run_id: str) -> Any:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self.project,
            name=self.name,
            id=run_id,
            resume="allow" if mode == "online" else None,
            group=self.group,
            dir=str(self.folder),
            mode=mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=settings,
        )


def leave() -> None:
    """End the process that W&B keeps beside this one."""
    import wandb

    wandb.teardown()


def _key() -> str | None:
    """The API key, as the environment or ~/.netrc has it."""
    from requests.utils import get_netrc_auth

    found = get_netrc_auth(os.environ.get("WANDB_BASE_URL") or _SERVER)
    return os.environ.get("WANDB_API_KEY") or (found[1] if found else None)
