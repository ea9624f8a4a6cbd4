"""A profiler trace of some steps, on request (`tracking.profile`).

runs/<name>/profile/*.pt.trace.json    opens in Perfetto (ui.perfetto.dev) and in TensorBoard
"""

from pathlib import Path
from typing import Any, Final, Self

import torch.profiler

_SKIPPED: Final = 10
_TRACED: Final = 6


class Profiler:
    """Traces six steps after the first dozen; does nothing where it is off."""

    def __init__(self, run: Path, *, on: bool) -> None:
        self.trace: torch.profiler.profile | None = None
        if on:
            folder = run / "profile"
            self.trace = torch.profiler.profile(
                schedule=torch.profiler.schedule(wait=_SKIPPED, warmup=2, active=_TRACED, repeat=1),
                on_trace_ready=torch.profiler.tensorboard_trace_handler(str(folder)),
                record_shapes=True,
            )

    def step(self) -> None:
        """Tell that a step is done."""
        if self.trace is not None:
            self.trace.step()

    def __enter__(self) -> Self:
        if self.trace is not None:
            self.trace.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.trace is not None:
            self.trace.__exit__(kind, error, trace)
