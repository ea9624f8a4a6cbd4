"""The store off the event loop: a few threads, a bounded number of calls, old rows erased.

A database that is down or slow costs callers of feedback a 503, and the classifier nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from serving.errors import ApiError
from serving.feedback.record import Record
from serving.feedback.store import THREADS, ConflictError, Store, StoreError

log = logging.getLogger(__name__)

_LIMIT: Final = 64
"""Calls that may wait for the database at once."""
_PATIENCE_S: Final = 15.0
_EVERY_S: Final = 3600.0
_AGAIN_S: Final = 30.0

T = TypeVar("T")


class Keeper:
    """A store for one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, "feedback")
        self._waiting = 0
        self._closed = threading.Event()
        threading.Thread(target=self._housekeeping, name="feedback", daemon=True).start()

    async def add(self, record: Record) -> tuple[str, bool]:
        """Keep one; its id once it is committed, and whether it is new.

        Raises:
            ApiError: it contradicts what is there, too many wait, or the database fails.
        """
        try:
            return await self._call(lambda: self._store.add(record))
        except ConflictError as error:
            raise ApiError(
                "conflict",
                f"this mail has other feedback, {error}; delete that first to change it",
            ) from None

    async def erase(self, id: str, token: str) -> bool:
        """Delete one of a token's; false where there is none. Raises ApiError as `add`."""
        return await self._call(lambda: self._store.erase(id, token))

    def close(self) -> None:
        """Take no more; what has begun is finished first."""
        self._closed.set()
        self._threads.shutdown(wait=True)
        self._store.close()

    async def _call(self, work: Callable[[], T]) -> T:
        if self._waiting >= _LIMIT:
            raise ApiError("overloaded", f"{_LIMIT} calls wait for the store of feedback")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        try:
            # Shielded: what has begun ends by itself, and only then is its place free.
            return await asyncio.wait_for(asyncio.shield(future), _PATIENCE_S)
        except TimeoutError as error:
            late = f"the store has not answered within {_PATIENCE_S:g} s; try again"
            raise ApiError("feedback_unavailable", late) from error
        except StoreError as error:
            log.error("feedback was refused: %s", error)
            raise ApiError(
                "feedback_unavailable", "the store of feedback does not work; try again"
            ) from error

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # of a caller who has gone: asyncio would log it

    def _housekeeping(self) -> None:
        """The tables made before the first feedback, and what is too old erased each hour."""
        while not self._closed.is_set():
            wait = _EVERY_S
            try:
                self._store.prepare()
                if gone := self._store.expire():
                    log.info("%d feedbacks were older than is allowed, and are erased", gone)
            except StoreError as error:
                log.error("the store of feedback at %s: %s", self._store.place, error)
                wait = _AGAIN_S
            self._closed.wait(wait)
