"""Linear models on hashed features of a mail: what training has to beat, and a second opinion.

    counted = features(mails, options)               Arrow, wherever the mails are read
    model = Linear.fit("byte 4-grams", counted, has)
    scores = model.scores(counted)

Byte 4-grams of the beginning of a raw mail, present or not, each mail of length 1, with C = 100 are
the spam filter of Sculley and Wachman, 'Relaxed Online SVMs for Spam Filtering' (SIGIR 2007), with
a logistic loss. Words are those of the whole mail text, TF-IDF with 1 + log(count). Nothing is set
by looking at scores.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer

from training.mail import MailError, MailTextOptions, mail_text

Kind = Literal["byte 4-grams", "TF-IDF words"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("byte 4-grams", pa.list_(pa.int32())),  # distinct columns
        ("TF-IDF words", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.float32())),  # of the words
    ]
)
_BITS: Final = 20
_COLUMNS: Final = 2**_BITS
_BYTES: Final = 3000
_C: Final = 100.0
_GOLDEN: Final = np.uint32(2654435769)
"""2^32 over the golden ratio: Knuth's multiplicative hash (TAOCP 6.4)."""


def features(mails: pa.Table, options: MailTextOptions) -> pa.Table:
    """SCHEMA of `training.originals`' rows; those that cannot be parsed are left out."""
    ids, grams, texts = [], [], []
    for row in mails.select(["id", "raw", "text"]).to_pylist():
        raw, text = row["raw"], row["text"]
        try:
            texts.append(mail_text(raw, options) if text is None else text)
        except MailError:
            continue
        ids.append(row["id"])
        grams.append(byte_grams(text.encode("utf-8", "replace") if raw is None else raw))
    words = _words(texts)
    starts = np.cumsum([0, *map(len, grams)], dtype=np.int32)
    flat = np.concatenate([*grams, np.zeros(0, np.int32)])
    columns = [
        pa.array(ids, pa.string()),
        pa.ListArray.from_arrays(starts, flat),
        pa.ListArray.from_arrays(words.indptr.astype(np.int32), words.indices.astype(np.int32)),
        pa.ListArray.from_arrays(words.indptr.astype(np.int32), words.data),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def byte_grams(raw: bytes) -> np.ndarray:
    """The columns of the distinct 4-grams of the first 3,000 bytes, int32, rising."""
    head = np.frombuffer(raw[:_BYTES], np.uint8).astype(np.uint32)
    if len(head) < 4:
        return np.zeros(0, np.int32)
    grams = head[:-3] << 24 | head[1:-2] << 16 | head[2:-1] << 8 | head[3:]
    return np.unique((grams * _GOLDEN) >> np.uint32(32 - _BITS)).astype(np.int32)


def _words(texts: list[str]) -> csr_matrix:
    if not texts:
        return csr_matrix((0, _COLUMNS), dtype=np.float32)
    counting = HashingVectorizer(
        n_features=_COLUMNS, alternate_sign=False, norm=None, dtype=np.float32
    )
    return counting.transform(texts)


@dataclass(frozen=True, slots=True)
class Linear:
    """A logistic regression for each label, one against the rest."""

    kind: Kind
    scale: Any
    """scikit-learn's transformer from counts to rows of length 1."""
    weights: np.ndarray
    """float32 [columns, labels], of two labels of which a mail has one the second alone"""
    bias: np.ndarray
    """float32 [labels]"""
    multi: bool

    @classmethod
    def fit(cls, kind: Kind, counted: pa.Table, has: np.ndarray, *, multi: bool) -> "Linear":
        """Learn bool [mails, labels] from as many rows of `features`; always the same of the same.

        A label that all or none of the mails have gets that for an answer.
        """
        counts = _matrix(counted, kind)
        scale = Normalizer() if kind == "byte 4-grams" else TfidfTransformer(sublinear_tf=True)
        rows = scale.fit_transform(counts)
        sides = has if multi or has.shape[1] > 2 else has[:, 1:]
        weights = np.zeros((_COLUMNS, sides.shape[1]), np.float32)
        bias = np.where(sides.all(0), np.float32(np.inf), np.float32(-np.inf))
        for label, side in enumerate(sides.T):
            if side.any() and not side.all():
                one = LogisticRegression(
                    C=_C, solver="liblinear", dual=True, max_iter=1000, random_state=0
                )
                with warnings.catch_warnings():
                    # Near the optimum is near enough for a model to compare with.
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    one.fit(rows, side)
                weights[:, label], bias[label] = one.coef_[0], one.intercept_[0]
        return cls(kind, scale, weights, bias, multi)

    def scores(self, counted: pa.Table) -> np.ndarray:
        """Probabilities, float32 [mails, labels]; rows add up to 1 where a mail has one label."""
        rows = self.scale.transform(_matrix(counted, self.kind))
        chances = expit((rows @ self.weights).astype(np.float64) + self.bias)
        if not self.multi:
            if chances.shape[1] == 1:
                chances = np.concatenate([1 - chances, chances], 1)
            total = chances.sum(1, keepdims=True)
            even = np.full_like(chances, 1 / chances.shape[1])
            chances = np.divide(chances, total, out=even, where=total > 0)
        scores: np.ndarray = chances.astype(np.float32)
        return scores


def _matrix(counted: pa.Table, kind: Kind) -> csr_matrix:
    """float32 [mails, columns]."""
    at = counted[kind].combine_chunks()
    starts = np.concatenate([[0], np.cumsum(at.value_lengths().to_numpy(zero_copy_only=False))])
    columns = at.flatten().to_numpy()
    if kind == "byte 4-grams":
        values = np.ones(len(columns), np.float32)
    else:
        values = counted["counts"].combine_chunks().flatten().to_numpy()
    return csr_matrix((values, columns, starts), shape=(len(at), _COLUMNS))
