"""Where a training worker sits: among Ray Train's workers, or alone in a process of somebody else.

Ray Train refuses its functions inside of a Tune trial, which a trial of one worker is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model

_DDP = {
    "gradient_as_bucket_view": True,
    # Else the buckets are cut anew after the first step of each start, and three or more gradients
    # are summed in another order from there on: a run that was killed would end in other bits.
    "find_unused_parameters": True,
}
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place in its group."""

    rank: int
    world: int
    device: torch.device
    report: Report
    """Takes the metrics of an epoch; all ranks call it."""
    prepare: Callable[[torch.nn.Module], Any]
    """The model on the device, wrapped for DDP where there are several workers."""
    leaving: Callable[[], bool]
    """Whether a node is about to go; all ranks ask at the same step."""

    @classmethod
    def among_workers(cls) -> "Seat":
        """As Ray Train has placed this process."""
        context = ray.train.get_context()
        return cls(
            context.get_world_rank(),
            context.get_world_size(),
            get_device(),
            ray.train.report,
            lambda model: prepare_model(model, parallel_strategy_kwargs=_DDP),
            lambda: ray.train.get_preemption_info() is not None,
        )

    @classmethod
    def alone(cls, report: Report) -> "Seat":
        """The one worker, on the GPU that this process was given, or on the CPU."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(0, 1, device, report, lambda model: model.to(device), lambda: False)
