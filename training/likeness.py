"""Likeness: MinHash signatures of mail texts, and the pairs of mails that are nearly the same.

Two texts are near-duplicates when the Jaccard similarity of their shingles, as their signatures
estimate it (standard deviation at most 0.044), is at least LIKE. Candidates come from locality-
sensitive hashing: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from rensa import RMinHash

HASHES: Final = 128
BANDS: Final = 32
"""Of four hashes each: a pair of similarity 0.7 shares a band with probability 0.9999."""
LIKE: Final = 0.7

_CHARS: Final = 8_192
_SHINGLE: Final = 16
"""Bytes of a shingle, which begins at the start of a word: two or three words."""
_LETTERS: Final = bytes(
    byte if byte >= 128 else ord(chr(byte).lower()) if chr(byte).isalpha() else 32
    for byte in range(256)
)
"""Of UTF-8: ASCII letters in lower case, all others as they are, blanks for the rest of ASCII."""
_CHUNK: Final = 65_536


def signatures(texts: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """The signature of each text, uint32 [mails, HASHES].

    Letter case, digits and punctuation make no difference, so that a campaign's serial numbers do
    not either. A text without a word is like no other: its id stands for it.
    """
    words = [
        b" ".join(text[:_CHARS].encode("utf-8", "replace").translate(_LETTERS).split())
        or f"\1{id_}".encode()
        for text, id_ in zip(texts, ids, strict=True)
    ]
    # Each text is followed by zeros, so that no shingle reaches into the next one.
    blobs = [b" " + word + bytes(_SHINGLE) for word in words]
    data = np.frombuffer(b"".join(blobs), np.uint8)
    starts = np.flatnonzero((data[1:] != 32) & (data[1:] != 0) & (data[:-1] == 32)) + 1
    windows = np.lib.stride_tricks.sliding_window_view(data, _SHINGLE)[starts]
    halves = np.ascontiguousarray(windows).view(np.uint64)
    hashes = mixed(halves[:, 0] ^ mixed(halves[:, 1]))
    ends = np.cumsum([len(blob) for blob in blobs])
    offsets = np.concatenate([[0], np.searchsorted(starts, ends)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, HASHES, 1)
    return np.asarray(matrix.to_rows(), np.uint32).reshape(len(texts), HASHES)


def pairs(signature: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Near-duplicates, band by band: rows of the one and of the other, int64.

    Not every pair is given, but whoever is like somebody comes with one of them: within a band,
    each mail is compared with the one before it and with the first of its kind.
    """
    width = HASHES // BANDS
    for band in range(BANDS):
        columns = np.ascontiguousarray(signature[:, band * width : (band + 1) * width])
        keys = columns.view(f"V{width * 4}").ravel()
        halves = columns.view(np.uint64)
        order = np.lexsort((halves[:, 0], halves[:, 1]))
        same = keys[order[1:]] == keys[order[:-1]]
        at = np.flatnonzero(same) + 1
        if not len(at):
            continue
        first = np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0)
        leaders = np.maximum.accumulate(first)
        for other in (at - 1, leaders[at]):
            yield from _alike(signature, order[at], order[other])


def _alike(
    signature: np.ndarray, one: np.ndarray, two: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(one), _CHUNK):
        a, b = one[start : start + _CHUNK], two[start : start + _CHUNK]
        alike = (signature[a] == signature[b]).mean(1) >= LIKE
        yield a[alike], b[alike]


def mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014), uint64 to uint64."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result
