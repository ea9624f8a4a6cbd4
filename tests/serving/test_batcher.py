"""The batcher, with a twin of the classifier that has no weights."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
import torch

from serving.batcher import Batcher, ScoreError
from serving.classifier import ModelInfo, Verdict
from serving.errors import ApiError


class Twin:
    """Answers each text with itself, once `go` is set; a text has as many tokens as characters."""

    info = ModelInfo("twin", "1", ("ham", "spam"), False, 1, (), 64, "fp32")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[tuple[str, int]] = set()
        self.room = 1_000
        self.go = threading.Event()
        self.go.set()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        self.threads.add((threading.current_thread().name, 0))
        return [list(map(ord, text)) for text in texts]

    def lengths(self, tokens: Sequence[list[int]]) -> list[int]:
        return list(map(len, tokens))

    def verdicts(self, tokens: Sequence[list[int]]) -> list[Verdict]:
        texts = ["".join(map(chr, of_mail)) for of_mail in tokens]
        self.batches.append(texts)
        self.threads.add((threading.current_thread().name, torch.get_num_threads()))
        self.go.wait(20)
        if "bad" in texts or len(texts) > self.room:
            raise ValueError("a broken model")
        return [
            Verdict(text, (text,), 1.0, {text: math.nan if text == "nan" else 1.0}, "twin", "1")
            for text in texts
        ]


def run(
    scenario: Callable[[Batcher], Awaitable[None]],
    twin: Twin,
    *,
    budget: int = 8,
    queued: int = 100,
    timeout_ms: float = 20_000,
    lanes: int = 1,
) -> None:
    """Run a scenario on a batcher over the twin, whose first mail is forgotten."""

    async def whole() -> None:
        batcher = Batcher(
            twin,
            threads=3,
            lanes=lanes,
            batch_tokens=budget,
            max_queued=queued,
            timeout_ms=timeout_ms,
        )
        twin.batches.clear()
        async with asyncio.timeout(20):
            await scenario(batcher)
        batcher.close()

    asyncio.run(whole())


async def labels(batcher: Batcher, texts: Sequence[str]) -> list[str]:
    found = await asyncio.gather(*map(batcher.classify, texts))
    return [scored.verdict.label for scored in found]


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


async def behind(batcher: Batcher, twin: Twin, texts: Sequence[str]) -> list[asyncio.Task[str]]:
    """Let texts wait, in this order, behind a forward that ends when `twin.go` is set."""
    twin.go.clear()
    tasks = []
    for place, text in enumerate(["-", *texts]):
        tasks.append(asyncio.create_task(_label(batcher, text)))
        # `queued` counts those that are being tokenized, too, which would miss the batch.
        await until(lambda: not batcher._tokenizing and bool(twin.batches))
        await until(lambda place=place: len(batcher._queue) == place)  # type: ignore[misc]
    return tasks


async def _label(batcher: Batcher, text: str) -> str:
    return (await batcher.classify(text)).verdict.label


def test_mails_that_gather_during_a_forward_are_scored_together_and_told_apart() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, "abc")
        twin.go.set()
        assert await asyncio.gather(*tasks) == ["-", "a", "b", "c"]

    run(scenario, twin)
    assert twin.batches == [["-"], ["a", "b", "c"]]


def test_tokens_and_forwards_have_threads_of_their_own() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        await labels(batcher, "ab")

    run(scenario, twin)
    assert twin.threads >= {("tokenize_0", 0), ("forward_0", 3)}
    assert {name for name, _ in twin.threads} <= {"tokenize_0", "forward_0", "MainThread"}


def test_a_mail_alone_gets_all_threads_and_several_get_a_lane_each() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        twin.threads.clear()
        tasks = await behind(batcher, twin, "abcd")
        await asyncio.sleep(0.05)
        assert twin.batches == [["-"]]  # what has all threads shares them with nobody
        assert ("forward_0", 3) in twin.threads
        twin.threads.clear()
        twin.go.set()
        await asyncio.gather(*tasks)

    run(scenario, twin, lanes=3)
    assert sorted(twin.batches) == [["-"], ["a", "b"], ["c"], ["d"]]
    assert {count for name, count in twin.threads if name.startswith("lane")} == {1}
    assert not any(name.startswith("forward") for name, _ in twin.threads)


def test_padding_counts_in_the_budget_and_a_larger_mail_goes_alone() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, ["aaaa", "b", "c" * 20, "d", "eee"])
        twin.go.set()
        await asyncio.gather(*tasks)

    run(scenario, twin, budget=8)
    assert twin.batches[1:] == [["eee", "aaaa"], ["b", "d"], ["c" * 20]]


def test_the_oldest_goes_next_with_those_nearest_in_length() -> None:
    twin = Twin()
    texts = ["a" * 10, "b", "c", "d" * 9, "e", "f" * 10, "g"]

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, texts)
        twin.go.set()
        await asyncio.gather(*tasks)

    run(scenario, twin, budget=30)
    assert twin.batches[1:] == [["d" * 9, "a" * 10, "f" * 10], ["b", "c", "e", "g"]]


@pytest.mark.parametrize(("one", "others"), [("long" * 4, "s"), ("s", "long" * 4)])
def test_neither_long_nor_short_mails_starve_the_other_kind(one: str, others: str) -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, [others] * 3 + [one])
        twin.go.set()
        stream = [asyncio.create_task(_label(batcher, others)) for _ in range(50)]
        await asyncio.gather(*tasks, *stream)

    run(scenario, twin, budget=16)
    place = next(i for i, batch in enumerate(twin.batches) if one in batch)
    assert place <= 4  # the three that came before it, at most one a batch


def test_a_full_queue_is_429_and_says_when_to_come_back() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        twin.go.clear()
        first = asyncio.create_task(_label(batcher, "-" * 100))
        await until(lambda: bool(twin.batches))
        await asyncio.sleep(0.2)
        twin.go.set()  # measured: some 2 ms a token
        await first
        tasks = await behind(batcher, twin, ["a" * 1_000] * 3)
        with pytest.raises(ApiError, match="3 mails are waiting") as refused:
            await batcher.classify("b")
        assert refused.value.code == "overloaded"
        assert 6 <= int(refused.value.headers["Retry-After"]) <= 60
        twin.go.set()
        await asyncio.gather(*tasks)
        assert await labels(batcher, "c") == ["c"]

    run(scenario, twin, queued=3)


def test_at_its_deadline_a_mail_is_504_and_not_scored() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, "a")
        for deadline in (time.monotonic() + 0.05, time.monotonic() - 1):
            with pytest.raises(ApiError, match="no verdict within") as late:
                await batcher.classify("late", deadline=deadline)
            assert late.value.code == "deadline_exceeded"
        assert batcher.queued == 1
        twin.go.set()
        await asyncio.gather(*tasks)

    run(scenario, twin)
    assert twin.batches == [["-"], ["a"]]


def test_a_model_that_hangs_keeps_nobody() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        twin.go.clear()
        for text in "ab":  # amid its forward, and behind it
            with pytest.raises(ApiError, match="no verdict within 50 ms"):
                await batcher.classify(text)
        twin.go.set()
        await until(lambda: not batcher.running)

    run(scenario, twin, timeout_ms=50)
    assert twin.batches == [["a"]]


def test_an_abandoned_request_is_not_scored() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, ["gone", "here"])
        tasks[1].cancel()
        await until(lambda: batcher.queued == 1)
        twin.go.set()
        await asyncio.wait(tasks)

    run(scenario, twin)
    assert twin.batches == [["-"], ["here"]]


def test_a_mail_that_the_model_cannot_take_harms_no_other() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, ["a", "bad", "nan", "b"])
        twin.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[i] for i in (0, 1, 4)] == ["-", "a", "b"]
        assert isinstance(found[2], ValueError)
        assert isinstance(found[3], ScoreError)
        assert "bad" not in str(found[3])

    run(scenario, twin, budget=100)


def test_a_batch_too_large_for_the_memory_is_scored_in_parts() -> None:
    twin = Twin()
    twin.room = 2

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, "abcdefg")
        twin.go.set()
        assert await asyncio.gather(*tasks) == list("-abcdefg")

    run(scenario, twin)


def test_a_model_that_scores_nothing_is_refused_at_once() -> None:
    twin = Twin()
    twin.room = 0
    with pytest.raises(ValueError, match="a broken model"):
        Batcher(twin, threads=1, batch_tokens=8, max_queued=1)


def test_closing_lets_nobody_wait_for_ever() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        tasks = await behind(batcher, twin, "a")
        assert batcher.ready
        batcher.close()
        assert not batcher.ready
        for refused in (tasks[1], batcher.classify("b")):
            with pytest.raises(ApiError) as error:
                await refused
            assert error.value.code == "not_ready"
        twin.go.set()
        assert await tasks[0] == "-"

    run(scenario, twin)
    assert twin.batches == [["-"]]


def test_timings_tell_apart_where_the_time_went() -> None:
    twin = Twin()

    async def scenario(batcher: Batcher) -> None:
        twin.go.clear()
        first = asyncio.create_task(batcher.classify("a"))
        await until(lambda: bool(twin.batches))
        second = asyncio.create_task(batcher.classify("b"))
        await until(lambda: batcher.queued == 1)
        await asyncio.sleep(0.2)
        twin.go.set()
        ran, waited = (await first).timings, (await second).timings
        assert ran.forward >= 200 > ran.queue + ran.tokenize
        assert waited.queue >= 190 > waited.forward + waited.tokenize

    run(scenario, twin)
