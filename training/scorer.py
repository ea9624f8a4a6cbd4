"""The one way from tokens to probabilities: evaluation, serving and bulk scoring all use it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from training.bundle import Bundle
from training.calibration import calibrated
from training.tokenizing import encode

Precision = Literal["auto", "bf16", "fp32"]
BATCH_TOKENS = 8_192
"""Tokens of one forward, padding included: the activations of a base model stay below 1 GiB."""


def bf16_pays() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware (CUDA, AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Scorer:
    """A bundle's model and tokenizer, ready to score mail texts."""

    def __init__(self, bundle: Bundle, precision: Precision = "auto") -> None:
        self.bundle = bundle
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bf16 = precision == "bf16" or (precision == "auto" and bf16_pays())
        self.precision: Literal["bf16", "fp32"] = "bf16" if bf16 else "fp32"
        # Converted weights beat autocast, which casts them anew in each forward.
        self.model = bundle.model().to(self.device, torch.bfloat16 if bf16 else torch.float32)
        self.tokenizer = bundle.tokenizer()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, at most `max_length`."""
        bundle = self.bundle
        return encode(self.tokenizer, texts, bundle.max_length, bundle.keep_head)

    def score(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Calibrated probabilities, float32 [mails, labels], in the order given.

        Mails are batched by length, so that a short one never pays for a long neighbour.
        """
        scores = np.zeros((len(tokens), len(self.bundle.labels)), np.float32)
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        batch: list[int] = []
        for row in order:
            if batch and len(tokens[row]) * (len(batch) + 1) > BATCH_TOKENS:
                scores[batch] = self._forward([tokens[i] for i in batch])
                batch = []
            batch.append(row)
        if batch:
            scores[batch] = self._forward([tokens[i] for i in batch])
        return calibrated(scores, self.bundle.temperature, multi=self.bundle.head.multi)

    @torch.inference_mode()
    def _forward(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        ids, mask = pad(tokens, self.model.filler)
        logits = self.model(ids.to(self.device), None if mask is None else mask.to(self.device))
        return self.model.probabilities(logits).cpu().numpy()


def pad(
    tokens: Sequence[Sequence[int] | np.ndarray], filler: int = 0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids as int64 [mails, longest], and their mask, None where nothing is padded."""
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), filler, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, of_mail in enumerate(tokens):
        ids[row, : len(of_mail)] = torch.as_tensor(of_mail)
        mask[row, : len(of_mail)] = 1
    return ids, None if all(len(of_mail) == longest for of_mail in tokens) else mask
