"""Likeness and groups: near-duplicates found whatever their numbers, others left alone."""

import numpy as np
import pyarrow as pa
import pytest

from training.groups import Forest, group
from training.likeness import HASHES, LIKE, pairs, signatures

WORDS = [f"{a}{b}" for a in ("mor", "kel", "tan", "vis", "pro") for b in ("ta", "lo", "ner", "gi")]


def _text(seed: int, words: int = 120) -> str:
    chance = np.random.default_rng(seed)
    return " ".join(chance.choice(WORDS, words))


def _pairs(texts: list[str]) -> set[tuple[int, int]]:
    found = pairs(signatures(texts, [str(i) for i in range(len(texts))]))
    return {(min(p), max(p)) for a, b in found for p in zip(a.tolist(), b.tolist(), strict=True)}


def test_case_digits_and_punctuation_make_no_difference() -> None:
    text = _text(0)
    other = f"{text.upper()}!! ref 88123"
    assert _pairs([text, other, _text(1)]) == {(0, 1)}


def test_the_estimate_is_the_jaccard_similarity_of_the_shingles() -> None:
    shared, own = [_text(i, 3) for i in range(400)], [_text(1000 + i, 3) for i in range(100)]
    one, two = " . ".join(shared), " . ".join(shared[:300] + own)
    estimate = (np.equal(*signatures([one, two], ["1", "2"]))).mean()

    def shingles(text: str) -> set[str]:
        words = text.replace(".", " ").split()
        joined = " ".join(words)
        starts = [0, *(i + 1 for i, c in enumerate(joined) if c == " ")]
        return {joined[s : s + 16] for s in starts}

    a, b = shingles(one), shingles(two)
    assert estimate == pytest.approx(len(a & b) / len(a | b), abs=0.13)  # three deviations


def test_texts_without_words_are_like_nobody() -> None:
    assert _pairs(["", "123 456", "", "!!!"]) == set()


def test_a_text_is_not_changed_by_its_neighbours() -> None:
    alone = signatures([_text(5)], ["a"])
    among = signatures([_text(4), _text(5), ""], ["x", "a", "y"])
    assert (alone[0] == among[1]).all()


def test_every_duplicate_among_many_is_found() -> None:
    texts = [_text(i) for i in range(300)]
    texts += [f"{text} and one more" for text in texts[:100]]
    found = _pairs(texts)
    assert {(i, 300 + i) for i in range(100)} <= found
    assert len(found) == 100


def test_ties_are_transitive() -> None:
    forest = Forest(6)
    forest.tie(np.array([0, 4]), np.array([2, 5]))
    forest.tie(np.array([2]), np.array([4]))
    assert forest.labels().tolist() == [0, 1, 0, 2, 0, 0]


def test_threads_and_campaigns_tie_and_none_ties_nobody() -> None:
    texts = [_text(i) for i in range(5)]
    signature = signatures(texts, list("abcde"))
    table = pa.table(
        {
            "signature": pa.FixedSizeListArray.from_arrays(pa.array(signature.ravel()), HASHES),
            "thread": pa.array([7, 7, 0, 0, 0], pa.uint64()),
            "campaign": pa.array([0, 0, 9, 9, 0], pa.uint64()),
        }
    )
    groups = group(table)
    assert groups.of.tolist() == [0, 0, 1, 1, 2]
    assert (groups.alike, groups.threads, groups.campaigns, groups.tied) == (0, 2, 2, 4)
    assert 0.5 < LIKE < 1
