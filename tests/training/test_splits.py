"""Splits: exact shares of each stratum, whatever the order of the mails."""

import numpy as np

from training.splits import SPLITS, assign


def test_each_stratum_is_cut_in_the_given_shares() -> None:
    strata = ["a"] * 1000 + ["b"] * 50
    split = assign([str(i) for i in range(1050)], strata, validation=0.2, test=0.1, seed=0)
    for stratum, count in (("a", 1000), ("b", 50)):
        mine = split[np.asarray(strata) == stratum]
        assert (mine == SPLITS.index("test")).sum() == count * 0.1
        assert (mine == SPLITS.index("validation")).sum() == count * 0.2


def test_the_order_of_the_mails_does_not_matter() -> None:
    ids = [str(i) for i in range(200)]
    forward = assign(ids, ["a"] * 200, validation=0.1, test=0.1, seed=3)
    backward = assign(ids[::-1], ["a"] * 200, validation=0.1, test=0.1, seed=3)
    assert (forward == backward[::-1]).all()
    assert (forward != assign(ids, ["a"] * 200, validation=0.1, test=0.1, seed=4)).any()
