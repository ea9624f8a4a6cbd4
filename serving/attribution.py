"""Attribution: how much each token of a mail moves a model's answer, by integrated gradients.

What is explained is a label's *score*, a linear function of the model's logits, calibrated: of two
labels the log-odds, so that the probability is its logistic function; where a mail may have several
labels, that label's logit; of more than two, its logit less the mean of the others'.

The encoder's part is attributed by integrated gradients (Sundararajan, Taly and Yan 2017) over the
word embeddings, from a baseline in which every token but the tokenizer's own marks and the words
that stand in each mail, `subject:` and `from:`, is [MASK]: as long as the mail, and says nothing.
To a pre-trained encoder [MASK] is a word that is not told; padding it has never attended to, and a
vector of zeros is no word at all.
The wide part is linear in its n-grams once their norm is known. With that held, what an n-gram adds
is exact; it is shared by the tokens that make it, all places alike (which is their Shapley value),
and its baseline, a mail without n-grams, has a logit of 0.

Completeness: all weights add up to score(mail) - score(baseline), but for the error of the
integral, which is the gap. The steps are doubled until it is within TOLERANCE, or the time is up.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from training.model import HeadShape, MailModel
from training.wide import Wide, grams, places

TOLERANCE: Final = 0.01
"""The largest gap, as a share of what there is to explain, which counts as 1 at least."""
FIRST_STEPS: Final = 8
MOST_STEPS: Final = 512
BATCH_TOKENS: Final = 2_048
"""Tokens of one forward and backward: their activations fit the caches, and the clock is looked at
between two."""


class NotExplainableError(ValueError):
    """The model is not built so that its answers can be explained; the message says why."""


class OutOfTimeError(RuntimeError):
    """The time was up before even the fewest steps were done."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each token weighs."""

    weights: np.ndarray
    """float64 [tokens]"""
    score: float
    """Of the mail."""
    baseline: float
    """The baseline's score."""
    gap: float
    """score - baseline - weights.sum()"""
    steps: int
    """Of the integral."""
    complete: bool
    """Whether the gap is within the tolerance."""


def direction(shape: HeadShape, label: int, temperature: float) -> Tensor:
    """By which a model's logits, times it and summed, are a label's score; float32 [logits]."""
    towards = torch.zeros(shape.logits)
    if shape.multi:
        towards[label] = 1
    elif shape.logits == 1:
        towards[0] = 1 if label else -1
    else:
        towards -= 1 / (shape.logits - 1)
        towards[label] = 1
    return towards / temperature


class Attributor:
    """A model that is asked for reasons; of one thread, as its embeddings are exchanged meanwhile.

    `model` is float32 and no other thread's; no parameter keeps a gradient.

    Raises:
        NotExplainableError: its encoder has no word embeddings.
    """

    def __init__(self, model: MailModel) -> None:
        encoder: Any = model.encoder
        try:
            embeddings = encoder.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            embeddings = None
        if not isinstance(embeddings, nn.Module):
            raise NotExplainableError(f"{type(encoder).__name__} has no word embeddings")
        # Here, as it brings Matplotlib: servers that are never asked for reasons start without.
        from captum.attr import LayerIntegratedGradients

        model.eval().requires_grad_(False)
        self._wide = model.wide
        self._narrow = MailModel(model.encoder, replace(model.shape, wide=0)).eval()
        self._narrow.head = model.head
        self._device = model.head.weight.device
        self._deadline = float("inf")
        self._towards = torch.empty(0)
        self._integrated = LayerIntegratedGradients(self._score, embeddings)

    def __call__(
        self,
        ids: Sequence[int],
        baseline: Sequence[int],
        towards: Tensor,
        read: np.ndarray,
        deadline: float,
    ) -> Attribution:
        """The weight of each of a mail's tokens.

        `ids` are its tokens and `baseline` as many others; the encoder reads those at the places
        `read`, int64. `towards` is a `direction`; `deadline` a time of `time.monotonic()`.

        Raises:
            OutOfTimeError: the deadline has passed before FIRST_STEPS were done.
        """
        self._deadline, self._towards = deadline, towards.to(self._device)
        pair = np.asarray([ids, baseline])[:, read]
        both = torch.as_tensor(pair, device=self._device)
        with torch.inference_mode():
            score, base = self._score(both).double().tolist()
        wide = np.zeros(len(ids))
        if self._wide is not None:
            wide = wide_shares(self._wide, ids, towards)
        score += float(wide.sum())
        found: Attribution | None = None
        steps = FIRST_STEPS
        while True:
            began = time.monotonic()
            try:
                shares = self._integral(both, steps)
            except OutOfTimeError:
                if found is None:
                    raise
                return found
            weights = wide.copy()
            weights[read] += shares
            gap = score - base - float(weights.sum())
            complete = abs(gap) <= TOLERANCE * max(abs(score - base), 1.0)
            found = Attribution(weights, score, base, gap, steps, complete)
            now = time.monotonic()
            # Twice the steps take twice the time: what cannot be ended is not begun.
            if complete or 2 * steps > MOST_STEPS or now + 2 * (now - began) > deadline:
                return found
            steps *= 2

    def _integral(self, both: Tensor, steps: int) -> np.ndarray:
        """float64 [tokens], the encoder's part; `both` is int64 [2, tokens], mail and baseline."""
        of_embeddings = self._integrated.attribute(
            both[:1],
            both[1:],
            n_steps=steps,
            internal_batch_size=min(steps, max(1, BATCH_TOKENS // both.shape[1])),
        )
        of_tokens: np.ndarray = of_embeddings[0].double().sum(1).cpu().numpy()
        return of_tokens

    def _score(self, ids: Tensor) -> Tensor:
        """float32 [mails]; called by captum too, between whose batches the clock is looked at."""
        if time.monotonic() > self._deadline:
            raise OutOfTimeError
        logits: Tensor = self._narrow(ids, None)
        return logits @ self._towards


def wide_shares(wide: Wide, ids: Sequence[int], towards: Tensor) -> np.ndarray:
    """What each token adds to the wide part's score, float64 [tokens]; the sum is that score.

    Half of a pair goes to each of its two tokens.
    """
    flat = np.asarray(ids, np.int64)
    found = grams([flat], wide.buckets)
    with torch.inference_mode():
        values = (found.counts * wide.rarity[found.buckets].cpu()).double()
        values /= values.square().sum().sqrt().clamp_min(1e-6)
        adds = values * (wide.weights[found.buckets].cpu() @ towards.cpu()).double()
    single, pairs = places(flat, wide.buckets)
    buckets = found.buckets.numpy()
    every = np.searchsorted(buckets, np.concatenate([single, pairs]))
    of_place = (adds.numpy() / np.bincount(every, minlength=len(buckets)))[every]
    shares = of_place[: len(flat)]
    halves = of_place[len(flat) :] / 2
    shares[:-1] += halves
    shares[1:] += halves
    return shares
