"""A trial as the ledger knows it: one training of one point of the space."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.config import TrainConfig
from training.schema import validate
from tuning.space import Settings, override

State = Literal["running", "paused", "done", "stopped", "failed"]
"""A paused one has come to a rung, and goes on if it is promoted."""
Facts = dict[str, Any]
"""What an epoch gave: `epoch`, `seen`, `seconds`, and the metrics as `val_loss`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one point of the space."""

    number: int
    point: int
    """The number of the first trial with these settings; others differ by their seed."""
    seed: int
    """Added to the training's seed."""
    settings: Settings
    state: State
    epochs: dict[int, Facts] = field(repr=False)
    """What was reported of each, in order."""
    reason: str | None = None
    """Why it failed, or was stopped."""
    generation: int = 0
    """Of a population."""
    origin: int | None = None
    """The trial whose newest checkpoint it goes on from."""
    until: int | None = None
    """The epoch to which it may train for now; None where that is its end."""

    @property
    def best(self) -> Facts:
        """The epoch with the lowest validation loss, whose weights are kept; empty where none."""
        return _best(self.epochs.values())

    @property
    def course(self) -> list[Facts]:
        """Its epochs as a bundle keeps them; what they lost in training is not known."""
        best = self.best
        return [
            {key: value for key, value in facts.items() if key != "stop"}
            | {"train_loss": None, "best": facts is best}
            for facts in self.epochs.values()
        ]

    @property
    def seconds(self) -> float:
        """What it took, all sessions together."""
        return float(sum(facts["seconds"] for facts in self.epochs.values()))

    def value(self, metric: str, until: int | None = None) -> float | None:
        """Of the best epoch, of those up to `until` where it is given; `seconds` is their sum."""
        rows = [facts for epoch, facts in self.epochs.items() if until is None or epoch <= until]
        if not rows:
            return None
        if metric == "seconds":
            return float(sum(facts["seconds"] for facts in rows))
        return float(_best(rows)[metric])


def _best(rows: Iterable[Facts]) -> Facts:
    return min(rows, key=lambda facts: facts["val_loss"], default={})


def settled(config: TrainConfig, settings: Settings, seed: int) -> TrainConfig:
    """The training config with a trial's settings."""
    changes = [override(key, value) for key, value in settings.items()]
    tree = config.model_dump(mode="json")
    return validate(TrainConfig, tree, [*changes, f"seed={config.seed + seed}"])


def folder(study: Path, number: int) -> Path:
    """A trial's directory."""
    return study / "trials" / f"{number:04d}"
