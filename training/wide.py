"""The wide part: a weight for every one and two tokens in a row, beside the encoder.

As in Cheng et al. 2016 (Wide & Deep Learning) its logits are added to those of the encoder, and
both are trained together. It reads more of a mail than the encoder does, costs next to nothing, and
holds on to what a few words or a sender's habits tell.

An n-gram falls into one of `buckets` by a hash. A mail's vector is that of TF-IDF: of each bucket
1 + log of its count in the mail, times its rarity, of length 1 in all. What stands in one training
mail alone has a rarity of 0, so that nothing is learned by heart from it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.likeness import mixed

_SECOND: Final = np.uint64(0xD6E8FEB86659FD93)
"""Tells the second token of a pair from the first, and a pair from a token alone."""


class Grams(NamedTuple):
    """The n-grams of some mails, end to end."""

    buckets: Tensor
    """int64 [n-grams], those of a mail rising"""
    counts: Tensor
    """float32 [n-grams], 1 + log of how often a mail has it"""
    lengths: Tensor
    """int64 [mails], how many n-grams each has"""

    def to(self, device: torch.device) -> "Grams":
        """The same on a device."""
        return Grams(*(part.to(device, non_blocking=True) for part in self))


def grams(mails: Sequence[Sequence[int] | np.ndarray], buckets: int) -> Grams:
    """The n-grams of each mail, from its token ids."""
    lengths = np.array([len(mail) for mail in mails], np.int64)
    flat = np.concatenate([np.asarray(mail, np.int64) for mail in mails]) if len(mails) else lengths
    owners, found, counts = counted(flat, lengths, buckets)
    return Grams(
        torch.from_numpy(found),
        torch.from_numpy((1 + np.log(counts)).astype(np.float32)),
        torch.from_numpy(np.bincount(owners, minlength=len(lengths))),
    )


def counted(
    flat: np.ndarray, lengths: np.ndarray, buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mail, bucket and count of each distinct n-gram of each mail, int64, in that order."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    single, pairs = places(flat, buckets)
    within = owners[1:] == owners[:-1]
    codes = np.concatenate([owners, owners[1:][within]]) * buckets
    codes += np.concatenate([single, pairs[within]])
    if len(lengths) * buckets <= np.iinfo(np.uint32).max:
        codes = codes.astype(np.uint32)  # sorted in a third of the time
    codes, counts = np.unique(codes, return_counts=True)
    codes = codes.astype(np.int64)
    return codes // buckets, codes % buckets, counts


def places(flat: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket of each token, int64 [tokens], and of it with the next one, int64 [tokens - 1]."""
    single = mixed(flat.astype(np.uint64))
    pairs = mixed(single[:-1] ^ mixed(flat[1:].astype(np.uint64) ^ _SECOND))
    size = np.uint64(buckets)
    return (single % size).astype(np.int64), (pairs % size).astype(np.int64)


class Wide(nn.Module):
    """Logits from n-grams alone."""

    def __init__(self, buckets: int, logits: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(buckets, logits))
        # A parameter that is not trained: DDP would send a buffer around in each step.
        self.rarity = nn.Parameter(torch.ones(buckets), requires_grad=False)

    @property
    def buckets(self) -> int:
        """How many n-grams it can tell apart."""
        return len(self.rarity)

    def forward(self, grams: Grams) -> Tensor:
        """Logits, float32 [mails, logits]."""
        values = grams.counts * self.rarity[grams.buckets]
        starts = grams.lengths.cumsum(0) - grams.lengths
        sums = functional.embedding_bag(
            grams.buckets, self.weights, starts, mode="sum", per_sample_weights=values
        )
        squares = torch.segment_reduce(values.square(), "sum", lengths=grams.lengths, initial=0)
        return sums / squares.sqrt().clamp_min(1e-6).unsqueeze(1)
