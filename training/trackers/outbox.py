"""An outbox: what is told to a tracker waits here, and nobody waits for the tracker.

A thread makes the calls in their order. One that fails because the tracker does not answer stays
the first, and is made again until it succeeds; so what was missed is told later. A tracker that
answers, and still fails a call three times, refuses it: the call is left out.
"""

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final

from training.tracking import TrackingError

Call = Callable[[], None]
KEPT: Final = 50_000
"""Calls that wait at most; those of three days of a run."""
TRIES: Final = 3
_ROUNDS: Final = 10
PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts; the last one again and again."""


class Outbox:
    """Calls to one tracker; `note` is told what a person should know.

    A call raises TrackingError where the tracker does not answer, anything else where it refuses.
    """

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self.name, self.note = name, note
        self.calls: deque[Call] = deque()
        self.changed = Condition()
        self.down: str | None = None
        """Why the tracker does not answer; None while it does, and has been told everything."""
        self.refusal: str | None = None
        """The first."""
        self.silences = self.made = 0
        """Calls to which nobody answered; those that succeeded."""
        self.in_row = self.refused = 0
        self.due = 0.0
        """When the first call may be made."""
        self.lost = 0
        self.closed = False
        Thread(target=self._work, daemon=True, name=f"outbox of {name}").start()

    def put(self, call: Call) -> None:
        """Add a call; returns at once."""
        with self.changed:
            if self.closed or len(self.calls) >= KEPT:
                self.lost += 1
            else:
                self.calls.append(call)
            self.changed.notify_all()

    def settle(self, patience: float) -> bool:
        """Wait until all is told, nobody answers, or nothing moves on for so many seconds.

        Returns whether all is told. Ten times the patience is the most that it takes.
        """
        with self.changed:
            before, self.due = self.silences, 0.0
            self.changed.notify_all()
            for _ in range(_ROUNDS):
                made = self.made
                self.changed.wait_for(lambda: not self.calls or self.silences > before, patience)
                if not self.calls or self.silences > before or self.made == made:
                    break
            return not self.calls

    def close(self, patience: float) -> None:
        """A last chance for what waits; what is left then is given up, and said."""
        self.settle(patience)
        with self.changed:
            self.closed = True
            left = len(self.calls) + self.lost
            self.changed.notify_all()
        if left:
            self.note(f"{self.name} was not told {left} of the things that it should keep")

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except TrackingError as error:
                self._failed(str(error), down=True)
            except Exception as error:  # whatever a tracker's client raises, the run goes on
                reason = str(error).strip() or type(error).__name__
                self._failed(reason.splitlines()[0], down=False)
            else:
                self._done()

    def _next(self) -> Call | None:
        """The first call, when it is time for it; None at the end."""
        with self.changed:
            while not self.closed:
                pause = self.due - time.monotonic()
                if self.calls and pause <= 0:
                    return self.calls[0]
                self.changed.wait(pause if self.calls else None)
            return None

    def _failed(self, reason: str, *, down: bool) -> None:
        said = None
        with self.changed:
            self.in_row += 1
            self.due = time.monotonic() + PAUSES[min(self.in_row, len(PAUSES)) - 1]
            if down and self.down is None:
                said = f"{reason}; the run goes on, and tells it later what it misses"
            self.refused = 0 if down else self.refused + 1
            if down:
                self.down = reason
                self.silences += 1
            elif self.refused >= TRIES:
                self.calls.popleft()
                self.in_row, self.refused, self.due = 0, 0, 0.0
                if self.refusal is None:
                    self.refusal = reason
                    said = (
                        f"{self.name} refuses some of what it is told, which is left out: {reason}"
                    )
            self.changed.notify_all()
            closed = self.closed
        if said and not closed:
            self.note(said)

    def _done(self) -> None:
        with self.changed:
            self.calls.popleft()
            self.made += 1
            self.in_row, self.refused, self.due = 0, 0, 0.0
            back = self.down is not None and not self.calls
            if back:
                self.down = None
            self.changed.notify_all()
            closed = self.closed
        if back and not closed:
            self.note(f"{self.name} answers again and was told what it had missed")
