"""How long work tells where it is, to whoever watches: the command line, or nobody."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stretch of work with one line of news."""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Replace the line; `done` of `total` where the end is known."""


class Stages(Protocol):
    """Opens stages."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """A stage that lasts as long as the block."""

    def note(self, text: str) -> None:
        """A line that stays."""


class Quiet:
    """Nobody watches."""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Say nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A stage that says nothing."""
        yield self

    def note(self, text: str) -> None:
        """Say nothing."""
