"""Rarity: how few training mails have an n-gram; the wide part weighs it by that."""

import hashlib
import uuid
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.tokens import column
from training.wide import counted

SAMPLE: Final = 200_000
"""Training mails that are counted at most: of more, so many drawn evenly."""
_CHUNK: Final = 4_096


def rarities(tokens: Path, rows: np.ndarray, buckets: int) -> Tensor:
    """The rarity of each bucket among the training mails, float32 [buckets].

    scikit-learn's smooth IDF, ln((1 + mails) / (1 + mails that have it)) + 1; 0 below two mails.
    `tokens` is a token cache and `rows` are its training mails, int64. It is kept in the cache.
    """
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]
    key = hashlib.sha256(np.ascontiguousarray(rows).tobytes() + str(buckets).encode())
    file = tokens / f"rarity-{key.hexdigest()[:16]}.npy"
    if file.is_file():
        return torch.from_numpy(np.load(file))
    all_tokens = column(tokens, "tokens")
    having = np.zeros(buckets, np.int64)
    for start in range(0, len(rows), _CHUNK):
        part = all_tokens.take(rows[start : start + _CHUNK]).combine_chunks()
        flat, lengths = part.flatten().to_numpy(), np.diff(part.offsets.to_numpy())
        having += np.bincount(counted(flat, lengths, buckets)[1], minlength=buckets)
    rarity = np.where(having > 1, np.log((1 + len(rows)) / (1 + having)) + 1, 0).astype(np.float32)
    # Ranks may do this at once, on nodes that number their processes alike.
    scratch = file.with_name(f".{file.stem}-{uuid.uuid4().hex[:8]}.npy")
    np.save(scratch, rarity)
    scratch.replace(file)
    return torch.from_numpy(rarity)
