"""The batcher, with a twin of the classifier that has no weights."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
import torch

from serving.batcher import Batcher
from serving.classifier import ModelInfo, Verdict


class Twin:
    """Answers each text with itself, once `go` is set; fails on the text 'bad'."""

    info = ModelInfo("twin", "1", ("ham", "spam"), False, 1, (), 64, "fp32")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[tuple[str, int]] = set()
        self.go = threading.Event()
        self.go.set()

    def classify_texts(self, texts: Sequence[str]) -> list[Verdict]:
        self.go.wait(5)
        self.batches.append(list(texts))
        self.threads.add((threading.current_thread().name, torch.get_num_threads()))
        if "bad" in texts:
            raise ValueError("a broken model")
        return [Verdict(text, (text,), 1.0, {text: 1.0}, "twin", "1") for text in texts]


def batcher_of(twin: Twin, *, wait_ms: float = 20, size: int = 4) -> Batcher:
    batcher = Batcher(twin, threads=3, batch_size=size, batch_wait_ms=wait_ms)
    twin.batches.clear()  # of the first mail, which warms the model up
    return batcher


async def labels(batcher: Batcher, texts: Sequence[str]) -> list[str]:
    return [v.label for v in await asyncio.gather(*map(batcher.classify, texts))]


def test_mails_that_arrive_together_are_scored_together_and_told_apart() -> None:
    twin = Twin()

    async def scenario() -> None:
        batcher = batcher_of(twin)
        assert await labels(batcher, "abcdef") == list("abcdef")
        batcher.close()

    asyncio.run(scenario())
    assert twin.batches == [list("abcd"), list("ef")]
    assert twin.threads == {("forward_0", 3)}


def test_a_full_batch_does_not_wait() -> None:
    async def scenario() -> None:
        batcher = batcher_of(Twin(), wait_ms=60_000)
        async with asyncio.timeout(5):
            await labels(batcher, "abcd")
        batcher.close()

    asyncio.run(scenario())


def test_mails_that_gather_during_a_forward_make_one_batch() -> None:
    twin = Twin()

    async def scenario() -> None:
        batcher = batcher_of(twin, wait_ms=0)
        twin.go.clear()
        first = asyncio.create_task(batcher.classify("a"))
        await asyncio.sleep(0.05)
        rest = []
        for text in "bcd":  # each apart by more than the wait
            rest.append(asyncio.create_task(batcher.classify(text)))
            await asyncio.sleep(0.02)
        twin.go.set()
        await asyncio.gather(first, *rest)
        batcher.close()

    asyncio.run(scenario())
    assert twin.batches == [["a"], ["b", "c", "d"]]


def test_an_abandoned_request_is_not_scored() -> None:
    twin = Twin()

    async def scenario() -> None:
        batcher = batcher_of(twin)
        gone = asyncio.create_task(batcher.classify("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await labels(batcher, ["here"]) == ["here"]
        batcher.close()

    asyncio.run(scenario())
    assert twin.batches == [["here"]]


def test_a_failed_forward_fails_its_batch_and_no_other() -> None:
    async def scenario() -> None:
        batcher = batcher_of(Twin())
        with pytest.raises(ValueError, match="a broken model"):
            await batcher.classify("bad")
        assert await labels(batcher, ["good"]) == ["good"]
        batcher.close()

    asyncio.run(scenario())


def test_closing_lets_nobody_wait_for_ever() -> None:
    twin = Twin()

    async def scenario() -> None:
        batcher = batcher_of(twin, wait_ms=0, size=1)
        twin.go.clear()
        waiting = [asyncio.create_task(batcher.classify(text)) for text in "ab"]
        await asyncio.sleep(0.05)
        assert batcher.ready
        batcher.close()
        assert not batcher.ready
        async with asyncio.timeout(5):
            await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
        twin.go.set()

    asyncio.run(scenario())
