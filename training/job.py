"""What a training worker is given, and its start; light, since drivers and controllers load it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from training.config import TrainConfig
from training.plan import Plan


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is given."""

    config: TrainConfig
    plan: Plan
    tokens: Path
    run: Path
    """The run's directory, which every node sees."""
    board: ActorHandle[Any] | None
    marks: dict[str, Any] = field(default_factory=dict)
    """What each message to the board says besides: whose it is, where several post there."""
    report: Callable[[dict[str, float]], None] | None = None
    """What gets the metrics of each epoch, where it is not Ray Train."""
    until: int | None = None
    """The epoch to stop after, before the last one."""

    def __call__(self) -> str | None:
        """`training.loop.train`, loaded in the worker alone: transformers takes seconds."""
        from training.loop import train

        return train(self)
