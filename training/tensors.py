"""Tensors: from the token ids of some mails to what a model's forward is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.tokenizing import Ids, shorten
from training.wide import Grams, grams

Tokens = Sequence[Ids]
"""Token ids of each mail."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How a model reads the tokens that are kept of a mail."""

    filler: int
    """The token id of padding."""
    max_length: int
    """Tokens of a mail that the encoder reads, `keep_head` of them from its beginning."""
    keep_head: float
    buckets: int
    """Of the wide part, which reads all of them; 0 for none."""

    def lengths(self, kept: np.ndarray) -> np.ndarray:
        """How many of each mail's tokens the encoder reads."""
        read: np.ndarray = np.minimum(kept, self.max_length)
        return read

    def __call__(self, mails: Tokens) -> tuple[torch.Tensor, torch.Tensor | None, Grams | None]:
        """`ids`, `mask` and `grams` of `MailModel.forward`."""
        arrays = [np.asarray(mail, np.int64) for mail in mails]
        short = [shorten(mail, self.max_length, self.keep_head) for mail in arrays]
        return *pad(short, self.filler), grams(arrays, self.buckets) if self.buckets else None


def pad(tokens: Tokens, filler: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids as int64 [mails, longest], and their mask, None where nothing is padded."""
    lengths = np.array([len(of_mail) for of_mail in tokens])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, filler, np.int64)
    ids[real] = np.concatenate([np.asarray(of_mail, np.int64) for of_mail in tokens])
    mask = None if real.all() else torch.from_numpy(real.astype(np.int64))
    return torch.from_numpy(ids), mask
