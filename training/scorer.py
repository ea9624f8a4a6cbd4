"""The one way from tokens to probabilities: evaluation, serving and bulk scoring all use it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from training.bundle import Bundle
from training.calibration import calibrated
from training.tensors import Reader
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
        self.model = bundle.model().to(self.device)
        # Converted weights beat autocast, which casts them anew in each forward.
        for part in (self.model.encoder, self.model.head):
            part.to(torch.bfloat16 if bf16 else torch.float32)
        self.tokenizer = bundle.tokenizer()
        self.reader = Reader(
            self.model.filler, bundle.max_length, bundle.keep_head, bundle.head.wide
        )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, as many as the model reads."""
        bundle = self.bundle
        return encode(self.tokenizer, texts, bundle.read_length, bundle.keep_head)

    def score(self, tokens: Sequence[list[int]]) -> np.ndarray:
        """Calibrated probabilities, float32 [mails, labels], in the order given.

        Mails are batched by length, so that a short one never pays for a long neighbour.
        """
        scores = np.zeros((len(tokens), len(self.bundle.labels)), np.float32)
        lengths = self.reader.lengths(np.array([len(of_mail) for of_mail in tokens], np.int64))
        batch: list[int] = []
        for row in np.argsort(lengths, kind="stable").tolist():
            if batch and lengths[row] * (len(batch) + 1) > BATCH_TOKENS:
                scores[batch] = self._forward([tokens[i] for i in batch])
                batch = []
            batch.append(row)
        if batch:
            scores[batch] = self._forward([tokens[i] for i in batch])
        return calibrated(scores, self.bundle.temperature, multi=self.bundle.head.multi)

    @torch.inference_mode()
    def _forward(self, tokens: Sequence[list[int]]) -> np.ndarray:
        ids, mask, grams = self.reader(tokens)
        logits = self.model(
            ids.to(self.device),
            None if mask is None else mask.to(self.device),
            None if grams is None else grams.to(self.device),
        )
        return self.model.probabilities(logits).cpu().numpy()
