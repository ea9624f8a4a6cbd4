"""The lineup: who answers while models come and go."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from serving.challenger import ChallengerConfig, Limits
from serving.errors import ApiError
from serving.lineup import Lineup
from tests.serving.engines import Twin, quiet

ALL = ChallengerConfig(model="twin@next", share=1, limits=Limits(after=4, latency_ratio=2))
CANARY = ALL.model_copy(update={"mode": "canary"})


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await scenario

    asyncio.run(limited())


def test_a_request_keeps_the_model_that_it_was_assigned_and_that_is_closed_after_it() -> None:
    async def scenario() -> None:
        old, new = Twin("1", extras=("reply_to",)), Twin("2")
        lineup = Lineup(old)
        assigned = lineup.assigned("r")
        lineup.replace(new)
        assert assigned.model.extras == ("reply_to",)
        assert lineup.model.version == "2"
        old.go.clear()
        waiting = asyncio.create_task(assigned.classify("a"))
        del assigned
        assert (await lineup.classify("b")).verdict.version == "2"
        await quiet()
        assert not old.closed
        old.go.set()
        assert (await waiting).verdict.version == "1"
        del waiting
        await quiet()
        assert old.closed
        assert not new.closed

    run(scenario())


def test_a_lineup_that_is_closed_is_not_ready() -> None:
    engine = Twin()
    lineup = Lineup(engine)
    assert lineup.ready
    lineup.close()
    assert not lineup.ready
    assert engine.closed


def test_a_shadow_is_asked_after_the_answer_and_changes_nothing_of_it() -> None:
    async def scenario() -> None:
        champion, shadow = Twin("1", spam=0.25), Twin("2", spam=0.45, ms=1.5)
        shadow.go.clear()
        lineup = Lineup(champion)
        lineup.challenge(shadow, ALL)
        for text in "abc":
            assert (await lineup.classify(text)).verdict.version == "1"
        shadow.go.set()
        await quiet()
        facts = lineup.facts().challenger
        assert facts is not None
        assert shadow.texts == ["a", "b", "c"]
        assert (facts.tally.requests, facts.tally.compared, facts.tally.label_changes) == (3, 3, 0)
        assert facts.tally.score_difference == pytest.approx(3 * 0.2)
        assert facts.tally.challenger_ms == pytest.approx(1.5 * facts.tally.champion_ms)
        assert facts.off is None

    run(scenario())


def test_a_shadow_waits_for_an_idle_champion_and_what_is_too_much_is_dropped() -> None:
    async def scenario() -> None:
        champion, shadow = Twin("1"), Twin("2")
        champion.busy = True
        lineup = Lineup(champion)
        lineup.challenge(shadow, ALL)
        for _ in range(20):
            await lineup.classify("a")
        await quiet()
        facts = lineup.facts().challenger
        assert facts is not None
        assert shadow.texts == []
        assert facts.tally.dropped >= 10
        champion.busy = False
        while len(shadow.texts) < 20 - facts.tally.dropped:
            await asyncio.sleep(0.005)

    run(scenario())


def test_a_canary_answers_its_share_and_a_request_id_always_gets_the_same() -> None:
    async def scenario() -> None:
        lineup = Lineup(Twin("1"))
        lineup.challenge(Twin("2"), CANARY.model_copy(update={"share": 0.25}))
        first, again = [
            [
                (await lineup.assigned(f"r-{number}").classify("a")).verdict.version
                for number in range(400)
            ]
            for _ in range(2)
        ]
        assert first == again
        assert 60 < first.count("2") < 140

    run(scenario())


def test_a_canary_that_fails_costs_no_request_and_is_turned_off() -> None:
    async def scenario() -> None:
        challenger = Twin("2")
        challenger.fault = lambda: ZeroDivisionError("what a mail says")
        lineup = Lineup(Twin("1"))
        lineup.challenge(challenger, CANARY)
        for _ in range(6):
            assert (await lineup.classify("a")).verdict.version == "1"
        await quiet()
        facts = lineup.facts().challenger
        assert facts is not None
        assert facts.off == "1 errors in 1 mails"
        assert len(challenger.texts) == 1
        assert challenger.closed

    run(scenario())


@pytest.mark.parametrize("config", [ALL, CANARY])
def test_one_that_disagrees_too_often_is_turned_off_and_the_reason_is_kept(
    config: ChallengerConfig,
) -> None:
    async def scenario() -> None:
        lineup = Lineup(Twin("1", spam=0.1))
        lineup.challenge(Twin("2", spam=0.9), config)
        await lineup.classify("a")
        await quiet()
        facts = lineup.facts().challenger
        assert facts is not None
        assert facts.off == "1 of 1 mails got another label"
        assert (await lineup.classify("a")).verdict.version == "1"

    run(scenario())


@pytest.mark.parametrize(("ms", "off"), [(1.9, False), (2.1, True)])
def test_one_that_is_slow_is_turned_off_once_it_has_been_compared_often_enough(
    ms: float, off: bool
) -> None:
    async def scenario() -> None:
        lineup = Lineup(Twin("1"))
        lineup.challenge(Twin("2", ms=ms), ALL)
        for number in range(4):
            facts = lineup.facts().challenger
            assert facts is not None
            assert facts.off is None
            await lineup.classify(str(number))
            await quiet()
        facts = lineup.facts().challenger
        assert facts is not None
        assert (facts.off is not None) == off
        assert facts.off is None or facts.off == "2.10 times the champion's time, for 4 mails"

    run(scenario())


def test_a_request_out_of_time_is_no_canarys_to_answer_late() -> None:
    async def scenario() -> None:
        champion, challenger = Twin("1"), Twin("2")
        champion.fault = challenger.fault = lambda: ApiError("deadline_exceeded", "no verdict")
        lineup = Lineup(champion)
        lineup.challenge(challenger, CANARY)
        with pytest.raises(ApiError, match="no verdict"):
            await lineup.classify("a")

    run(scenario())


def test_who_reads_mail_otherwise_or_is_the_champion_is_no_challenger() -> None:
    lineup = Lineup(Twin("1"))
    with pytest.raises(ValueError, match="other parts of a mail"):
        lineup.challenge(Twin("2", extras=("reply_to",)), ALL)
    with pytest.raises(ValueError, match="is the champion"):
        lineup.challenge(Twin("1"), ALL)


def test_a_challenger_that_becomes_the_champion_ends_and_another_begins_anew() -> None:
    async def scenario() -> None:
        lineup = Lineup(Twin("1"))
        lineup.challenge(Twin("2"), ALL)
        await lineup.classify("a")
        await quiet()
        lineup.replace(Twin("3"))
        facts = lineup.facts().challenger
        assert facts is not None
        assert (facts.tally.compared, facts.off) == (0, None)
        lineup.replace(Twin("2"))
        facts = lineup.facts().challenger
        assert facts is not None
        assert facts.off == "it is the champion"

    run(scenario())
