"""The reference: its bins hold enough mails, and other hardware's rounding moves none of them."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training.reference import FEWEST, NAMED, SCORES, SHARE, Reference, counted, reference


def of_spam(spam: np.ndarray, lengths: np.ndarray | None = None) -> Reference:
    lengths = np.arange(len(spam)) if lengths is None else lengths
    found = reference(("ham", "spam"), np.stack([1 - spam, spam], 1), lengths, ["test"],
                      multi=False)  # fmt: skip
    assert found is not None
    return found


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=200), st.integers(0, 9))
def test_every_mail_is_in_a_bin_with_enough_others(scores: list[float], seed: int) -> None:
    spam = np.array(scores, np.float32)
    lengths = np.random.default_rng(seed).integers(1, 40, len(spam))
    found = of_spam(spam, lengths)
    for bins, values in ((found.score, spam), (found.length, lengths)):
        assert counted(values, bins.edges).tolist() == list(bins.counts)
        assert sum(bins.counts) == len(spam)
        assert len(bins.counts) == 1 or min(bins.counts) >= max(FEWEST, SHARE * len(spam))
    assert set(found.score.edges) <= set(SCORES)
    assert Reference.read(asdict(found)) == found


def test_scores_that_pile_up_at_both_ends_are_not_parted_there() -> None:
    chance = np.random.default_rng(0)
    logits = np.where(chance.random(2_000) < 0.3, 12, -12) + chance.normal(0, 3, 2_000)
    exact = expit(logits)
    rounded = np.clip(exact + chance.normal(0, 1e-4, 2_000), 0, 1)
    found = of_spam(exact)
    moved = np.abs(counted(rounded, found.score.edges) - np.array(found.score.counts)).sum()
    assert moved <= 8
    # By tenths of the scores themselves it is hundreds.
    tenths = np.quantile(exact, np.linspace(0.1, 0.9, 9))
    assert np.abs(counted(rounded, tenths) - counted(exact, tenths)).sum() > 400


def test_lengths_that_are_cut_at_the_longest_are_one_bin() -> None:
    lengths = np.minimum(np.arange(1, 1_001), 512)
    found = of_spam(np.full(1_000, 0.5, np.float32), lengths)
    assert found.length.edges == (101, 201, 301, 401, 501, 512)
    assert found.score.edges == ()
    assert found.length.mean == pytest.approx(lengths.mean())


def test_many_labels_have_the_most_frequent_and_the_others_together() -> None:
    names = [f"label-{at}" for at in range(30)]
    best = np.repeat(np.arange(30), np.arange(1, 31))
    scores = np.eye(30, dtype=np.float32)[best] * 0.8
    found = reference(names, scores, best + 1, ["test"], multi=True)
    assert found is not None
    assert found.label.names == tuple(names[-NAMED:])
    assert found.label.counts[-1] == sum(range(1, 31 - NAMED))
    assert found.score.mean == pytest.approx(0.8)


def test_no_mails_give_no_reference() -> None:
    assert reference(("ham", "spam"), np.zeros((0, 2)), np.zeros(0), [], multi=False) is None
