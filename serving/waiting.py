"""The mails that wait for their forward, and which of them go next.

The oldest is always in the next batch, so that no kind of mail can starve another: one that waits
behind n others is scored in n + 1 batches at the latest. The batch is filled with those nearest to
the oldest in length, of equal ones the older first, until its tokens, padding included, are a
budget's worth. A mail that is larger than the budget goes alone.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from serving.engine import Scored


@dataclass(eq=False, slots=True)
class Waiting:
    """A mail and who waits for its verdict."""

    tokens: list[int]
    length: int
    """How many of the tokens the encoder reads."""
    answer: asyncio.Future[Scored]
    """Done before its forward where nobody waits any longer."""
    tokenize: float
    """Seconds that the tokens took."""
    since: float
    """When they were there, by `time.monotonic`."""


class Queue:
    """Mails in the order in which they came."""

    def __init__(self) -> None:
        self._mails: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._mails)

    @property
    def tokens(self) -> int:
        """How many tokens wait, without padding."""
        return sum(mail.length for mail in self._mails)

    def put(self, mail: Waiting) -> None:
        """Let a mail wait."""
        self._mails.append(mail)

    def leave(self, mail: Waiting) -> None:
        """Take out a mail that nobody waits for, if it is still there."""
        if mail in self._mails:
            self._mails.remove(mail)

    def take(self, budget: int, most: int) -> list[Waiting]:
        """The next batch, of `most` mails at the most, the shortest first; empty if none waits."""
        if not self._mails:
            return []
        oldest = self._mails.popleft()
        batch, longest = [oldest], oldest.length
        # Sorting is stable: of mails alike in length the older ones come first.
        for mail in sorted(self._mails, key=lambda mail: abs(mail.length - oldest.length)):
            longest = max(longest, mail.length)
            if len(batch) == most or longest * (len(batch) + 1) > budget:
                break
            batch.append(mail)
        taken = set(map(id, batch))
        self._mails = deque(mail for mail in self._mails if id(mail) not in taken)
        return sorted(batch, key=lambda mail: mail.length)

    def empty(self) -> list[Waiting]:
        """All that wait, taken out."""
        mails = list(self._mails)
        self._mails.clear()
        return mails
