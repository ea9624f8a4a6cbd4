"""What a training worker is given, and its start; light, since drivers and controllers load it."""

from dataclasses import dataclass
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

    def __call__(self) -> str | None:
        """`training.loop.train`, loaded in the worker alone: transformers takes seconds."""
        from training.loop import train

        return train(self)
