"""Drift: told when mail changes, and not when it does not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.drift import (
    ALARM,
    DRIFT,
    OTHERS,
    STEPS,
    WATCH,
    Counts,
    Drift,
    Shift,
    chance,
    compared,
    judged,
    named,
    needed,
    psi,
    worst,
)
from tests.serving.references import INFO, MAILS, Mails, made, stream
from training.labels import Labels
from training.reference import Bins, Reference, reference

COUNTS = st.lists(st.integers(0, 5_000), min_size=2, max_size=12)
PAIRS = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 999), min_size=size, max_size=size)] * 2)
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def counted(known: Reference, mails: Mails) -> Counts:
    drift = Drift(known, INFO)
    for mail in mails:
        drift.note(*mail)
    return drift.recent()


def shifts(known: Reference, mails: Mails) -> dict[str, Shift]:
    return {shift.quantity: shift for shift in compared(known, counted(known, mails))}


@given(COUNTS)
def test_the_same_counts_are_no_distance(counts: list[int]) -> None:
    assert psi(counts, counts) == 0


@given(PAIRS)
def test_the_index_is_symmetric_finite_and_never_negative(
    pair: tuple[list[int], list[int]],
) -> None:
    one, other = pair
    assert 0 <= psi(one, other) < float("inf")
    assert psi(one, other) == pytest.approx(psi(other, one))


def test_the_index_of_known_shares() -> None:
    assert psi([50_000, 50_000], [75_000, 25_000]) == pytest.approx(0.25 * np.log(3), rel=1e-3)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_counts_of_replicas_add_up_to_those_of_one(one: int, other: int) -> None:
    known, mails = made(), stream(one + other, 5)
    merged = counted(known, mails[:one]).plus(counted(known, mails[one:]))
    whole = counted(known, mails)
    assert (merged.score, merged.length, merged.label) == (whole.score, whole.length, whole.label)
    assert (merged.mails, merged.length_sum) == (one + other, whole.length_sum)
    assert merged.score_sum == pytest.approx(whole.score_sum)


def test_replicas_of_another_model_are_not_added() -> None:
    drift = Drift(made(), INFO)
    mails = stream(30, 6)
    for mail in mails:
        drift.note(*mail)
    told = json.loads(json.dumps(drift.told()))
    counts, replicas = drift.together([told, told | {"version": "4"}, None, told])
    assert (counts.mails, replicas) == (60, 2)
    assert counts.length_sum == 2 * sum(length for _, length in mails)


def test_the_reference_s_own_mails_are_counted_as_it_counts_them() -> None:
    mails = stream(MAILS, 99)
    known = made(mails)
    counts = counted(known, mails)
    assert tuple(counts.score) == known.score.counts
    assert tuple(counts.length) == known.length.counts
    assert tuple(counts.label) == known.label.counts
    found = compared(known, counts)
    assert [(shift.psi, shift.state) for shift in found] == [(0, "steady")] * 3
    for shift in found[:2]:
        assert shift.mean == pytest.approx(shift.reference_mean)


@pytest.mark.parametrize("mails", [30, 100, 1_000])
def test_chance_is_believed_once_in_a_thousand_windows(mails: int) -> None:
    """Both samples are drawn, as both are in truth; 20,000 windows."""
    known = made()
    dice = np.random.default_rng(1)
    for bins in (known.score, known.length, known.label):
        shares = np.array(bins.counts) / MAILS
        p, q = (
            (dice.multinomial(n, shares, 20_000) + 0.5) / (n + 0.5 * len(shares))
            for n in (MAILS, mails)
        )
        index = ((q - p) * np.log(q / p)).sum(1)
        luck = chance(len(shares), MAILS, mails)
        assert (index > luck).mean() < 3 * ALARM
        if mails == 1_000:  # with few mails it is rarer
            assert (index > luck).mean() > ALARM / 4


def test_a_real_shift_is_seen_and_says_what_moved() -> None:
    known = made()
    found = shifts(known, stream(500, 3))
    assert {shift.state for shift in found.values()} == {"steady"}
    more_spam = shifts(known, stream(500, 3, spam=0.6))
    states = {shift.quantity: shift.state for shift in more_spam.values()}
    assert states == {"score": "drift", "length": "steady", "label": "drift"}
    score, label = more_spam["score"], more_spam["label"]
    assert score.mean is not None
    assert score.reference_mean is not None
    assert score.mean > score.reference_mean + 0.2
    [ham, spam] = label.bins
    assert (ham.name, spam.name) == ("ham", "spam")
    assert spam.here == pytest.approx(0.6, abs=0.07)
    assert spam.reference == pytest.approx(0.3, abs=0.05)
    shorter = shifts(known, stream(500, 3, longer=0.5))
    assert (shorter["length"].state, shorter["score"].state) == ("drift", "steady")
    assert worst(more_spam.values()) == "drift"


def test_a_large_shift_is_seen_before_a_small_one_could_be() -> None:
    known = made()
    few = shifts(known, stream(40, 4))
    assert worst(few.values()) == "too_few"
    assert few["length"].needed == needed(len(known.length.counts), MAILS)
    assert few["length"].needed > 200  # type: ignore[operator]
    assert shifts(known, stream(40, 4, spam=1.0))["score"].state == "drift"


def test_no_mail_is_told_without_a_number() -> None:
    for shift in compared(made(), Counts.none(made())):
        assert (shift.psi, shift.chance, shift.mean, shift.state) == (None, None, None, "too_few")
        assert {each.here for each in shift.bins} == {None}


def test_so_many_mails_as_are_needed_are_enough() -> None:
    for bins in (2, 5, 9):
        enough = needed(bins, MAILS)
        assert enough is not None
        assert chance(bins, MAILS, enough) < WATCH <= chance(bins, MAILS, enough - 1)
    assert needed(9, 200) is None


def test_an_index_counts_only_beyond_chance() -> None:
    assert judged(0.2, 0.3) == "too_few"
    assert judged(0.4, 0.3) == "drift"
    assert judged(DRIFT, 0.01) == "watch"
    assert judged(WATCH, 0.01) == "steady"
    assert judged(0.15, 0.12) == "watch"


def test_the_window_forgets_and_the_total_does_not() -> None:
    known, clock = made(), Clock()
    drift = Drift(known, INFO, hours=24, clock=clock)
    for _ in range(48):
        drift.note({"ham": 0.9, "spam": 0.1}, 100)
        clock.now += 3600
    assert 23 <= drift.recent().mails <= 24
    assert drift.total.mails == 48
    clock.now += 24 * 3600
    assert drift.recent().mails == 0
    drift.note({"ham": 0.9, "spam": 0.1}, 100)
    assert (drift.recent().mails, drift.total.mails) == (1, 49)
    assert len(drift._marks) <= STEPS + 2


def test_a_model_of_many_labels_is_held_to_its_highest_probability() -> None:
    names = tuple(f"label-{at}" for at in range(12))
    best = np.arange(600) % 12
    scores = np.full((600, 12), 0.02) + 0.7 * np.eye(12)[best]
    known = reference(names, scores, np.arange(600), ["test"], multi=False)
    assert known is not None
    drift = Drift(known, replace(INFO, labels=names))
    for at in range(600):
        drift.note(dict(zip(names, scores[at].tolist(), strict=True)), at)
    assert tuple(drift.total.label) == known.label.counts
    assert tuple(drift.total.score) == known.score.counts
    assert compared(known, drift.total)[2].bins[-1].name == OTHERS


def test_many_mails_at_once_are_counted_as_one_by_one() -> None:
    known, mails = made(), stream(200, 8, spam=0.5)
    scores = np.array([list(scores.values()) for scores, _ in mails])
    found = Counts.of(known, Labels(INFO.labels), scores, np.array([length for _, length in mails]))
    one_by_one = counted(known, mails)
    assert found.score_sum == pytest.approx(one_by_one.score_sum)
    assert replace(found, score_sum=0) == replace(one_by_one, score_sum=0)


def test_counts_of_other_bins_are_not_added() -> None:
    with pytest.raises(ValueError, match="argument"):
        Counts([1], [1], [1]).plus(Counts([1, 0], [1], [1]))


def test_bins_have_names_for_people() -> None:
    assert named(Bins((0.1, 0.999), (1, 2, 3), 0.5)) == [
        "below 0.1", "0.1 to 0.999", "0.999 and above",
    ]  # fmt: skip
    assert named(Bins((130.0, 512.0), (1, 2, 3), 9.0), whole=True) == [
        "below 130", "130 to 511", "512 and above",
    ]  # fmt: skip
    assert named(Bins((), (6,), 0.5)) == ["all"]
