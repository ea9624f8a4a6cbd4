"""Splits: shares kept, groups whole, sides for ever, torn ties left out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.splits import LEFT_OUT, TEST, TRAIN, VALIDATION, Ledger, Shares, assign

SHARES = Shares(validation=0.2, test=0.1, seed=0, by="hash")


def _assign(
    ids: list[str],
    groups: np.ndarray | None = None,
    *,
    strata: list[str] | None = None,
    dates: np.ndarray | None = None,
    named: np.ndarray | None = None,
    shares: Shares = SHARES,
    known: dict[str, int] | None = None,
) -> np.ndarray:
    count = len(ids)
    return assign(
        ids,
        strata or ["a"] * count,
        np.arange(count, dtype=np.int32) if groups is None else groups,
        np.zeros(count, np.int64) if dates is None else dates,
        np.full(count, LEFT_OUT, np.int8) if named is None else named,
        shares,
        known,
    )


def test_each_stratum_is_cut_in_the_given_shares() -> None:
    strata = ["a"] * 1000 + ["b"] * 50
    side = _assign([str(i) for i in range(1050)], strata=strata)
    for stratum, count in (("a", 1000), ("b", 50)):
        mine = side[np.asarray(strata) == stratum]
        assert (mine == TEST).sum() == count * 0.1
        assert (mine == VALIDATION).sum() == count * 0.2


def test_the_order_of_the_mails_does_not_matter_and_the_seed_does() -> None:
    ids = [str(i) for i in range(200)]
    forward = _assign(ids)
    assert (forward == _assign(ids[::-1])[::-1]).all()
    other = Shares(validation=0.2, test=0.1, seed=1, by="hash")
    assert (forward != _assign(ids, shares=other)).any()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=30, max_size=200), st.integers(0, 3))
def test_a_group_is_never_torn(groups: list[int], seed: int) -> None:
    ids = [str(i) for i in range(len(groups))]
    shares = Shares(validation=0.2, test=0.2, seed=seed, by="hash")
    side = _assign(ids, np.asarray(groups, np.int32), shares=shares)
    assert (side != LEFT_OUT).all()
    for group in set(groups):
        assert len(set(side[np.asarray(groups) == group])) == 1
    assert (side == TEST).sum() <= 0.2 * len(ids) + 0.5


def test_time_tests_on_the_latest_mails() -> None:
    dates = np.arange(100, dtype=np.int64)[::-1].copy() + 1
    shares = Shares(validation=0.2, test=0.1, seed=0, by="time")
    side = _assign([str(i) for i in range(100)], dates=dates, shares=shares)
    assert side.tolist() == [TEST] * 10 + [VALIDATION] * 20 + [TRAIN] * 70


def test_named_splits_win_and_a_training_mail_that_leaks_is_left_out() -> None:
    named = np.array([TRAIN, TRAIN, TEST, VALIDATION, TRAIN], np.int8)
    groups = np.array([0, 1, 0, 2, 2], np.int32)  # rows 0 and 4 are like mails held out
    side = _assign(["a", "b", "c", "d", "e"], groups, named=named)
    assert side.tolist() == [LEFT_OUT, TRAIN, TEST, VALIDATION, LEFT_OUT]


def test_mails_keep_their_sides_when_a_thousand_are_added() -> None:
    before = [f"old{i}" for i in range(500)]
    known = dict(zip(before, _assign(before).tolist(), strict=True))
    ids = [f"new{i}" for i in range(1000)] + before
    side = _assign(ids, known=known)
    assert {id_: int(s) for id_, s in zip(ids, side, strict=True) if id_ in known} == known
    assert (side == TEST).sum() == pytest.approx(150, abs=1)


def test_a_new_mail_joins_its_group_or_is_left_out_of_two() -> None:
    known = {"tested": TEST, "trained": TRAIN, "other": TRAIN}
    ids = ["tested", "joins", "trained", "other", "ties", "loose"]
    joins = np.array([0, 0, 1, 2, 1, 3], np.int32)
    assert _assign(ids, joins, known=known)[:5].tolist() == [TEST, TEST, TRAIN, TRAIN, TRAIN]
    torn = np.array([0, 0, 0, 2, 0, 3], np.int32)  # two new mails tie test to training
    assert _assign(ids, torn, known=known)[:5].tolist() == [TEST, LEFT_OUT, TRAIN, TRAIN, LEFT_OUT]


def test_the_ledger_keeps_what_it_was_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "splits" / "x.arrow")
    assert ledger.read() == {}
    ledger.add(["a", "b", "c"], np.array([TEST, LEFT_OUT, TRAIN], np.int8), {})
    ledger.add(["a", "d"], np.array([TRAIN, TRAIN], np.int8), ledger.read())
    assert ledger.read() == {"a": TEST, "c": TRAIN, "d": TRAIN}
    assert [path.name for path in ledger.file.parent.iterdir()] == ["x.arrow"]
