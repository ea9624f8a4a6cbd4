"""The batcher: mails that arrive together are scored together, in one thread of their own.

While a forward runs, mails gather; when it ends, as many as fit make the next batch.
`serve.batch` does not: it cuts a batch each `batch_wait_timeout_s` even while the model is busy,
so under load a queue of small batches forms. An abandoned request leaves before its forward.
"""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch

from serving.classifier import ModelInfo, TextClassifier, Verdict


class Batcher:
    """A classifier behind a queue; `classify` is called from one event loop.

    The constructor scores a first mail, so that a model that cannot is refused at once, and the
    first request does not pay for what Torch sets up lazily.
    """

    def __init__(
        self, classifier: TextClassifier, *, threads: int, batch_size: int, batch_wait_ms: float
    ) -> None:
        self.model: ModelInfo = classifier.info
        self._classifier = classifier
        self._batch_size = batch_size
        self._wait_s = batch_wait_ms / 1000
        self._waiting: deque[tuple[float, str, asyncio.Future[Verdict]]] = deque()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Torch's thread count holds only for the thread that sets it.
        self._forward = ThreadPoolExecutor(
            1, "forward", initializer=torch.set_num_threads, initargs=(threads,)
        )
        self._forward.submit(classifier.classify_texts, ["subject: \nfrom: \n\n"]).result()
        self._open = True

    @property
    def ready(self) -> bool:
        """Whether mails are taken; false once `close` was called."""
        return self._open

    async def classify(self, text: str) -> Verdict:
        """The verdict on one mail text."""
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run())
        verdict: asyncio.Future[Verdict] = loop.create_future()
        self._waiting.append((loop.time(), text, verdict))
        self._changed.set()
        return await verdict

    def close(self) -> None:
        """Take no more mails; those that wait are cancelled."""
        self._open = False
        if self._task is not None:
            self._task.cancel()
        for _, _, verdict in self._waiting:
            verdict.cancel()
        self._forward.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            try:
                texts = [text for text, _ in batch]
                verdicts = await loop.run_in_executor(
                    self._forward, self._classifier.classify_texts, texts
                )
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), verdict in zip(batch, verdicts, strict=True):
                    if not future.done():
                        future.set_result(verdict)
            finally:  # closed amid a forward: nobody may wait for ever
                for _, future in batch:
                    future.cancel()

    async def _next_batch(self) -> list[tuple[str, asyncio.Future[Verdict]]]:
        batch: list[tuple[str, asyncio.Future[Verdict]]] = []
        while not batch:
            while not self._waiting:
                await self._next_change()
            # Counted from the mail's arrival: one that waited for a forward waits no longer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._waiting[0][0] + self._wait_s):
                    while len(self._waiting) < self._batch_size:
                        await self._next_change()
            while self._waiting and len(batch) < self._batch_size:
                _, text, future = self._waiting.popleft()
                if not future.cancelled():
                    batch.append((text, future))
        return batch

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
