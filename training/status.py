"""The status of a run: a line for a person, notes of what befell it, numbers for the tracker."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from training.config import TrainConfig
from training.progress import Message
from training.stages import Stage


class Status:
    """Turns what the workers say into one line, notes, rows of epochs and tracked numbers."""

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
        self.workers = 0
        """Of the last start; 0 before the first."""
        self.lost = False
        """Workers were, and have not started since."""
        self.before = float("inf")
        """The lowest validation loss that the run had when this command took it up."""
        self.seen = 0
        self.loss = float("nan")
        self.losses: dict[int, list[float]] = {}
        """Of the messages of each epoch that has not ended."""
        self.rows: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.logged = 0.0
        self.mark = (0, 0.0)
        """Mails seen, and seconds trained since the Meter was made, at the message before."""
        self.mails = self.seconds = self.padding = self.mfu = 0.0
        """Sums over what was trained; the last two weighted by mails and by seconds."""

    @property
    def rate(self) -> float:
        """Mails a second of step time, over all steps so far; 0 before the first.

        Those are counted whose time is known: up to the last message of each epoch. Validation,
        checkpoints and restarts take no step time; mails trained on twice count twice.
        """
        return self.mails / self.seconds if self.seconds else 0.0

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row for each epoch that this command saw end, with whether it is the best of the run.

        `train_loss` is the mean of the epoch's messages, None without any; `seconds` is wall time,
        validation and restarts included; what starts with `val_` is of the validation mails.
        """
        best = self._best()
        return [row | {"best": row is best} for row in self.rows]

    def __call__(self, message: Message) -> None:
        """Take one message of the board."""
        match message["kind"]:
            case "started":
                self._started(message)
            case "step":
                self._step(message)
            case "epoch":
                self._epoch(message)
            case "lost":
                self.lost = True
                self.note(f"{_those(message['ranks'])} lost: {message['reason']}")
            case "note":
                self.note(message["text"])
            case "system":
                self.log(_facts(message), self.seen)

    def closing(self) -> str:
        """The line that stays: the best epoch, and means over all steps of this command."""
        if not self.rows or not self.seconds:
            return "nothing was left to train"
        best = self._best()
        found = "no epoch was better than those before" if best is None else (
            f"best epoch {best['epoch']} of {self.epochs}: "
            f"validation loss {best['val_loss']:.4f}, F1 {best['val_f1']:.4f}"
        )  # fmt: skip
        return (
            f"{found}; {self.rate:,.0f} mails/s, {self.padding / self.mails:.0%} padding, "
            f"MFU {self.mfu / self.seconds:.0%}"
        )

    def _started(self, message: Message) -> None:
        for text in message["passed_over"]:
            self.note(text)
        workers, epoch, seen = message["workers"], message["epoch"], message["seen"]
        place = f"epoch {epoch + 1}, step {message['step'] + 1}"
        if self.workers or self.lost:
            up = f"{_many(workers, 'worker')} up again"
            if self.workers not in (0, workers):
                plural = "s" * (workers > 1)
                up = f"training goes on with {workers} worker{plural} ({self.workers} before)"
            again = max(self.seen - seen, 0)
            self.note(f"{up}, from {place}: {_many(again, 'mail')} trained on again")
        elif epoch == self.epochs:
            self.note(f"all {epoch} epochs were trained before")
        elif seen or message["passed_over"]:
            self.note(f"goes on at {place}: {seen:,} mails were trained on before")
        if not self.workers:
            self.before, self.began = message.get("best", self.before), time.monotonic()
        # An epoch that was lost with its checkpoint is trained, and told of, once more.
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]
        self.workers, self.lost, self.seen, self.mark = workers, False, seen, (seen, 0.0)
        self.log({"workers": workers}, seen)

    def _step(self, message: Message) -> None:
        seen, seconds = message["seen"], message["trained_seconds"]
        mails, spent = seen - self.mark[0], seconds - self.mark[1]
        self.seen, self.mark = seen, (seen, seconds)
        self.mails, self.seconds = self.mails + mails, self.seconds + spent
        self.padding += message["padding"] * mails
        self.mfu += message["mfu"] * spent
        self.losses.setdefault(message["epoch"], []).append(message["loss"])
        before = message["loss"] if math.isnan(self.loss) else self.loss
        self.loss = 0.9 * before + 0.1 * message["loss"]
        left = (self.total - seen) / message["mails_per_second"]
        best = self._best()
        validated = f", validation F1 {best['val_f1']:.4f}" if best else ""
        self.stage.update(
            f"epoch {message['epoch'] + 1}/{self.epochs} step {message['step']}/{message['steps']} "
            f"loss {self.loss:.3f} {message['mails_per_second']:,.0f} mails/s "
            f"{message['tokens_per_second']:,.0f} tokens/s {message['padding']:.0%} padding "
            f"MFU {message['mfu']:.0%} {_time(left)} left{validated}",
            seen, self.total,
        )  # fmt: skip
        now = time.monotonic()
        if now - self.logged > 5:  # a database row for each of thousands of steps is too much
            self.logged = now
            self.log(_facts(message), seen)

    def _epoch(self, message: Message) -> None:
        now, losses = time.monotonic(), self.losses.pop(message["epoch"] - 1, None)
        row = {"train_loss": sum(losses) / len(losses) if losses else None}
        self.rows.append(_facts(message) | row | {"seconds": now - self.began})
        self.began, self.seen, self.mark = now, message["seen"], (message["seen"], 0.0)
        self.log(_facts(message), self.seen)

    def _best(self) -> dict[str, Any] | None:
        """The row of the epoch whose weights are kept, as the training loop chooses it."""
        lowest = min(self.rows, key=lambda row: row["val_loss"], default=None)
        return lowest if lowest is not None and lowest["val_loss"] < self.before else None


def _facts(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in ("kind", "seen")}


def _those(ranks: Sequence[int]) -> str:
    """As `workers 0, 1 and 2 were`."""
    if not ranks:
        return "the workers were"
    *first, last = map(str, ranks)
    return f"workers {', '.join(first)} and {last} were" if first else f"worker {last} was"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun} is" if count == 1 else f"{count:,} {noun}s are"


def _time(seconds: float) -> str:
    """In the unit that people would choose."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
