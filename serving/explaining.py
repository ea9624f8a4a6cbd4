"""Explaining: explanations beside classification, which they must not slow down.

One thread, of the lowest priority that its system has for it, explains one mail after another; it
has a model of its own, made for the first of them. Beyond a few that wait, requests are refused.
"""

import asyncio
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from serving.attribution import NotExplainableError, OutOfTimeError
from serving.errors import ApiError
from serving.explanation import Explainer, Explanation
from training.mail import Mail

NICENESS = 19
"""The niceness of a thread that gets what others leave: a 70th of a core that is wanted."""


class Explaining:
    """An explainer behind a short queue; `explain` is called from one event loop."""

    def __init__(
        self, make: Callable[[], Explainer], *, threads: int, seconds: float, limit: int
    ) -> None:
        self._make = make
        self._explainer: Explainer | None = None
        self._seconds = seconds
        self._limit = limit
        self._under_way = 0
        self._pool = ThreadPoolExecutor(1, "explain", initializer=_aside, initargs=(threads,))

    async def explain(
        self, text: str, *, mail: Mail | None, label: str | None, deadline: float
    ) -> Explanation:
        """As `Explainer.explain`; `deadline` is a time of `time.monotonic()`.

        Raises:
            ApiError: `overloaded`, `deadline_exceeded`, `not_explainable`.
        """
        if self._under_way >= self._limit:
            seconds = max(1, round(self._seconds))
            raise ApiError(
                "overloaded",
                f"{self._limit} mails are being explained",
                {"Retry-After": str(seconds)},
            )
        self._under_way += 1
        try:
            job = self._pool.submit(self._run, text, mail, label, deadline)
        except RuntimeError as error:
            self._under_way -= 1
            raise ApiError("not_ready", "the model was shut down") from error
        # Not before the thread is done with it: who goes away early makes no room.
        job.add_done_callback(functools.partial(self._left, asyncio.get_running_loop()))
        return await self._answer(job, deadline)

    def close(self) -> None:
        """Take no more; those that wait are refused."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, job: "Future[Explanation]", deadline: float) -> Explanation:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.wrap_future(job)
        except (TimeoutError, OutOfTimeError) as error:
            raise ApiError("deadline_exceeded", "no explanation within its time") from error
        except NotExplainableError as error:
            raise ApiError("not_explainable", str(error)) from error
        except asyncio.CancelledError:
            if job.cancelled() and not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise ApiError("not_ready", "the model was shut down") from None
            raise

    def _left(self, loop: asyncio.AbstractEventLoop, _: "Future[Explanation]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop may have ended before the thread
            loop.call_soon_threadsafe(self._count_one_less)

    def _count_one_less(self) -> None:
        self._under_way -= 1

    def _run(self, text: str, mail: Mail | None, label: str | None, deadline: float) -> Explanation:
        if self._explainer is None:
            self._explainer = self._make()
        seconds = min(self._seconds, deadline - time.monotonic())
        return self._explainer.explain(text, mail=mail, label=label, seconds=seconds)


def _aside(threads: int) -> None:
    """Of the calling thread: its priority, and how many of Torch's threads it uses."""
    if sys.platform == "linux":  # where niceness is a thread's own, and passed on to those it makes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    torch.set_num_threads(threads)
