"""The batcher: mails that wait together are scored together, in threads of their own.

A mail is tokenized in one thread and scored in another; the event loop only passes them on. Beside
a GPU, which is faster than any tokenizer, as many threads tokenize as there are cores to it. A
batch does not wait for more: while a forward runs, mails gather, and when it ends the next batch
is formed of them (`serving.waiting` says which). `serve.batch` cuts a batch each
`batch_wait_timeout_s` even while the model is busy, so under load a queue of small batches forms.

On a CPU a mail that is alone is scored by all cores; where several wait, each core scores a batch
of its own. Threads that share a forward wait for each other after every operation, and where HTTP
or a neighbour holds one of the cores for a moment, all of them wait for that one.

Nobody waits for ever: a request leaves at its deadline, whatever the model does, and is not scored
once it has left. A batch that fails is scored anew in halves, so that a mail which the model cannot
take, or one batch too large for the memory, harms no other mail.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from serving.classifier import ModelInfo, TextClassifier, Verdict
from serving.drift import Drift
from serving.engine import Scored, Timings
from serving.errors import ApiError
from serving.explaining import Explaining
from serving.explanation import Explanation
from serving.metrics import Metrics
from serving.waiting import Queue, Waiting
from training.mail import Mail

_FADE = 0.1
"""The weight of the latest batch in the measured speed."""

_LONGEST_RETRY_S = 60

_CPU_TOKENS = 1_024
"""From some four mails of 128 tokens on, a core does no more of them in a second."""

_GPU_TOKENS = 8_192
"""Larger ones, as bulk classification has, answered fewer mails in a second, and each later."""

_MOST_LANES = 4
"""More forwards at once wait for Python's lock, which each holds for some milliseconds."""

logger = logging.getLogger(__name__)


class Batcher:
    """A classifier behind a queue; `classify` is called from one event loop.

    `lanes` batches are scored at once, each with its share of the threads; by default one for each
    thread, at most four, and one on a GPU. `batch_tokens` follows the hardware, too.

    The constructor scores a first mail, so that a model that cannot is refused at once, and the
    first request does not pay for what Torch sets up lazily.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        *,
        threads: int,
        lanes: int | None = None,
        batch_tokens: int | None = None,
        max_queued: int,
        timeout_ms: float = 30_000.0,
        explaining: Explaining | None = None,
        metrics: Metrics | None = None,
        drift: Drift | None = None,
    ) -> None:
        self.model: ModelInfo = classifier.info
        self._classifier = classifier
        self._explaining = explaining
        self._metrics = metrics or Metrics()
        self.drift = drift
        on_gpu = torch.cuda.is_available()
        self._budget = batch_tokens or (_GPU_TOKENS if on_gpu else _CPU_TOKENS)
        self._max_queued = max_queued
        self._timeout_s = timeout_ms / 1000
        self._queue = Queue()
        self._tokenizing = 0
        self._tokenizer = ThreadPoolExecutor(threads if on_gpu else 1, "tokenize")
        self._lane_count = count = lanes or (1 if on_gpu else min(threads, _MOST_LANES))
        self._whole = _threads("forward", 1, threads)
        self._lanes = self._whole if count == 1 else _threads("lane", count, threads // count)
        self.running = 0
        self._all_cores = False
        first = classifier.tokens(["subject: \nfrom: \n\n"])
        for pool in {self._whole, self._lanes}:
            [verdict] = pool.submit(self._verdicts, first).result()
            if isinstance(verdict, Exception):
                raise verdict
        self._seconds_a_token = 0.0
        self._open = True

    @property
    def ready(self) -> bool:
        """Whether mails are taken; false once `close` was called."""
        return self._open

    @property
    def queued(self) -> int:
        """How many mails wait for their forward."""
        return self._tokenizing + len(self._queue)

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        """As `serving.engine.Engine`.

        Raises:
            ApiError: `overloaded`, `deadline_exceeded`, or `not_ready` once closed.
            ScoreError: the model gives this mail no probability.
        """
        began = time.monotonic()
        if not self._open:
            raise ApiError("not_ready", "the model is not ready")
        if self.queued >= self._max_queued:
            raise ApiError(
                "overloaded",
                f"{self._max_queued:,} mails are waiting; try again",
                {"Retry-After": str(self._retry_after())},
            )
        left = self._timeout_s if deadline is None else deadline - began
        try:
            async with asyncio.timeout(left) as limit:
                tokens = await self._tokens(text)
                return await self._scored(tokens, began)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ApiError(
                "deadline_exceeded", f"no verdict within {max(0.0, left) * 1000:,.0f} ms"
            ) from error

    async def explain(
        self, text: str, *, mail: Mail | None, label: str | None, deadline: float
    ) -> Explanation:
        """As `serving.engine.Explains`."""
        if self._explaining is None:
            raise ApiError("not_explainable", "this server has no means to explain")
        return await self._explaining.explain(text, mail=mail, label=label, deadline=deadline)

    def close(self) -> None:
        """Take no more mails and refuse those that wait; a forward that runs is answered."""
        self._open = False
        for mail in self._queue.empty():
            if not mail.answer.done():
                mail.answer.set_exception(ApiError("not_ready", "the model was shut down"))
        self._tokenizer.shutdown(wait=False)
        if self._explaining is not None:
            self._explaining.close()
        self._whole.shutdown(wait=False)
        self._lanes.shutdown(wait=False)

    async def _tokens(self, text: str) -> list[int]:
        self._tokenizing += 1
        try:
            [tokens] = await asyncio.get_running_loop().run_in_executor(
                self._tokenizer, self._classifier.tokens, [text]
            )
        finally:
            self._tokenizing -= 1
        return tokens

    async def _scored(self, tokens: list[int], began: float) -> Scored:
        if not self._open:
            raise ApiError("not_ready", "the model was shut down")
        now = time.monotonic()
        [length] = self._classifier.lengths([tokens])
        answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        mail = Waiting(tokens, length, answer, now - began, now)
        self._queue.put(mail)
        self._next()
        try:
            return await answer
        finally:
            self._queue.leave(mail)

    def _next(self) -> None:
        """Begin as many forwards as there are lanes free and mails waiting."""
        loop = asyncio.get_running_loop()
        while self._open and len(self._queue) and self.running < self._lane_count:
            if self._all_cores and self.running:
                return
            self._all_cores = not self.running and len(self._queue) == 1
            free = self._lane_count - self.running
            batch = self._queue.take(self._budget, math.ceil(len(self._queue) / free))
            pool = self._whole if self._all_cores else self._lanes
            self.running += 1
            job = loop.run_in_executor(pool, self._run, batch)
            job.add_done_callback(partial(self._done, batch))

    def _run(self, batch: Sequence[Waiting]) -> tuple[float, float, list[Verdict | Exception]]:
        """In the forward's thread: when it began and ended, and what came out for each mail."""
        began = time.monotonic()
        found = self._verdicts([mail.tokens for mail in batch])
        return began, time.monotonic(), found

    def _verdicts(self, tokens: Sequence[list[int]]) -> list[Verdict | Exception]:
        try:
            verdicts = self._classifier.verdicts(tokens)
            assert len(verdicts) == len(tokens), "one verdict for each mail"
        except Exception as error:
            logger.warning("a forward of %d mails failed: %s", len(tokens), type(error).__name__)
            self._metrics.failed(len(tokens))
            if len(tokens) == 1:
                return [error]
            middle = len(tokens) // 2
            return self._verdicts(tokens[:middle]) + self._verdicts(tokens[middle:])
        return [_fault(verdict) or verdict for verdict in verdicts]

    def _done(
        self,
        batch: Sequence[Waiting],
        job: asyncio.Future[tuple[float, float, list[Verdict | Exception]]],
    ) -> None:
        self.running -= 1
        self._next()  # before the answers are written: the model is what all wait for
        began, ended, found = job.result()
        spent = (ended - began) / max(1, batch[-1].length * len(batch))
        weight = _FADE if self._seconds_a_token else 1
        self._seconds_a_token += (spent - self._seconds_a_token) * weight
        for mail, verdict in zip(batch, found, strict=True):
            if mail.answer.done():
                continue
            if isinstance(verdict, Exception):
                mail.answer.set_exception(verdict)
            else:
                spans = (mail.tokenize, began - mail.since, ended - began)
                mail.answer.set_result(Scored(verdict, Timings(*(1000 * span for span in spans))))
        self._metrics.batch([mail.length for mail in batch])
        if self.drift is not None:
            for mail, verdict in zip(batch, found, strict=True):
                if not isinstance(verdict, Exception):
                    self.drift.note(verdict.scores, len(mail.tokens))

    def _retry_after(self) -> int:
        """Seconds until what waits now will have been scored, by the speed so far."""
        seconds = self._queue.tokens * self._seconds_a_token / self._lane_count
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_S)


def _threads(name: str, count: int, cores: int) -> ThreadPoolExecutor:
    """Threads whose forwards take so many cores each."""
    # Torch's thread count holds only for the thread that sets it.
    return ThreadPoolExecutor(count, name, torch.set_num_threads, (cores,))


class ScoreError(RuntimeError):
    """The model gives a mail no probability, but NaN."""


def _fault(verdict: Verdict) -> ScoreError | None:
    if all(map(math.isfinite, verdict.scores.values())):
        return None
    return ScoreError(
        f"{verdict.model} version {verdict.version} gives a mail no probability, but NaN: its "
        "weights are damaged, or too large for bf16; take precision=fp32"
    )
