"""The status of a run: one line for a person, numbers for the tracker."""

import time
from collections.abc import Callable
from typing import Any

from training.config import TrainConfig
from training.progress import Message
from training.stages import Stage


class Status:
    """Turns what the workers say into one line and into tracked numbers."""

    def __init__(
        self,
        stage: Stage,
        note: Callable[[str], None],
        config: TrainConfig,
        mails: int,
        log: Callable[[dict[str, Any], int], None],
    ) -> None:
        self.stage, self.note, self.log = stage, note, log
        self.epochs = config.optimizer.epochs
        self.total = mails * self.epochs
        self.seen = 0
        self.rate = 0.0
        self.loss = float("nan")
        self.best: Message = {}
        self.logged = 0.0

    def __call__(self, message: Message) -> None:
        """Take one message of the board."""
        self.seen = message["seen"]
        facts = {key: value for key, value in message.items() if key not in ("kind", "seen")}
        if message["kind"] == "resumed":
            self.note(
                f"goes on at epoch {message['epoch'] + 1}, step {message['step'] + 1}: "
                f"{self.seen:,} mails were trained on before"
            )
            return
        if message["kind"] == "epoch":
            self.log(facts, self.seen)
            if not self.best or message["val_loss"] < self.best["val_loss"]:
                self.best = message
            return
        self.rate = message["mails_per_second"]
        smooth = 0.9 if self.loss == self.loss else 0.0
        self.loss = smooth * (self.loss if smooth else 0.0) + (1 - smooth) * message["loss"]
        left = (self.total - self.seen) / self.rate
        validated = f", validation F1 {self.best['val_f1']:.4f}" if self.best else ""
        self.stage.update(
            f"epoch {message['epoch'] + 1}/{self.epochs} step {message['step']}/{message['steps']} "
            f"loss {self.loss:.3f} {self.rate:.0f} mails/s "
            f"{message['tokens_per_second']:,.0f} tokens/s "
            f"{left / 60:.0f} min left{validated}",
            self.seen, self.total,
        )  # fmt: skip
        if (
            now := time.monotonic()
        ) - self.logged > 5:  # a database row for each of thousands of steps is too much
            self.logged = now
            self.log(facts, self.seen)

    def closing(self) -> str:
        """The line that stays."""
        if not self.best:
            return "nothing was left to train"
        return (
            f"best epoch {self.best['epoch']} of {self.epochs}: "
            f"validation loss {self.best['val_loss']:.4f}, "
            f"F1 {self.best['val_f1']:.4f}; {self.rate:.0f} mails/s"
        )
