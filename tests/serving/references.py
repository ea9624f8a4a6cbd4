"""References made up for drift, and mails that are as theirs or are not."""

import numpy as np
from scipy.special import expit

from serving.classifier import ModelInfo
from training.reference import Reference, reference

INFO = ModelInfo("twin", "3", ("ham", "spam"), False, 2, (), 512, "fp32")
MAILS = 1_200


Mails = list[tuple[dict[str, float], int]]


def stream(count: int, seed: int, *, spam: float = 0.3, longer: float = 1.0) -> Mails:
    """Probabilities and lengths of mails, of which a share is spam."""
    chance = np.random.default_rng(seed)
    is_spam = chance.random(count) < spam
    scores = expit(np.where(is_spam, 5, -5) + chance.normal(0, 3, count))
    lengths = np.minimum(longer * chance.lognormal(5.5, 0.7, count), 512).astype(int) + 2
    return [
        ({"ham": 1 - score, "spam": score}, length)
        for score, length in zip(scores.tolist(), lengths.tolist(), strict=True)
    ]


def made(mails: Mails | None = None) -> Reference:
    """Of such mails."""
    mails = stream(MAILS, 99) if mails is None else mails
    scores = np.array([list(scores.values()) for scores, _ in mails])
    found = reference(INFO.labels, scores, np.array([length for _, length in mails]),
                      ["validation", "test"], multi=False)  # fmt: skip
    assert found is not None
    return found
