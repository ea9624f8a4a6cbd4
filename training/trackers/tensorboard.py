"""TensorBoard's files of a run: `tensorboard --logdir ~/.mailray/runs` shows all of them."""

from pathlib import Path

import yaml
from tensorboardX import SummaryWriter

from training.tracking import State


class TensorBoard:
    """One run's files in `folder`; they are written whatever becomes of the other trackers."""

    def __init__(self, folder: Path) -> None:
        self.board = SummaryWriter(str(folder), flush_secs=5)

    def params(self, values: dict[str, str]) -> None:
        """As Tracker says; a text in Markdown."""
        self._text("params", values)

    def tags(self, values: dict[str, str]) -> None:
        """As Tracker says; a text in Markdown."""
        self._text("tags", values)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """As Tracker says."""
        for key, value in metrics.items():
            self.board.add_scalar(key, value, step)

    def artifact(self, file: Path) -> None:
        """Nothing: it lies beside."""

    def finish(self, state: State) -> None:
        """As Tracker says."""
        self.board.close()

    def _text(self, name: str, values: dict[str, str]) -> None:
        lines = yaml.safe_dump(values, sort_keys=False).splitlines()
        self.board.add_text(name, "\n".join(f"    {line}" for line in lines))
