"""Checkpoints: all that a run needs to go on exactly where it stood.

model.safetensors   the weights        optimizer.pt   AdamW's moments and the schedule
state.json          the place in the plan, written last
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.model import MailModel


@dataclass(slots=True)
class State:
    """Where a run stands; the next batch is (`epoch`, `step`)."""

    epoch: int = 0
    step: int = 0
    seen: int = 0
    """Mails trained on so far."""
    best: float = float("inf")
    """The lowest validation loss so far."""
    stale: int = 0
    """Epochs since then."""
    over: bool = False
    """Stopped early: nothing is left to do."""


def write(folder: Path, model: MailModel, optimizer: Any, schedule: Any, state: State) -> None:
    """Put a checkpoint in an existing, empty folder."""
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    moments = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save(moments, folder / "optimizer.pt")
    (folder / "state.json").write_text(json.dumps(asdict(state)), "utf-8")


def read(folder: Path, model: MailModel, optimizer: Any, schedule: Any) -> State:
    """Restore what `write` wrote, in place."""
    model.load_state_dict(load_file(folder / "model.safetensors"))
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    return State(**json.loads((folder / "state.json").read_text("utf-8")))
