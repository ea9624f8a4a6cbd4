"""The one way from tokens to probabilities: evaluation, serving and bulk scoring all use it."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from training.bundle import Bundle
from training.calibration import calibrated
from training.choice import Choice, Precision, Runtime, choose
from training.forward import Forward, PrecisionName, RuntimeName, TorchForward, bf16_pays
from training.model import MailModel
from training.tensors import Reader
from training.tokenizing import encode

__all__ = ["Precision", "PrecisionName", "Runtime", "RuntimeName", "Scorer", "bf16_pays"]


class Scorer:
    """A bundle's model and tokenizer, ready to score mail texts.

    `runtime` is PyTorch unless another is asked for: figures that are compared should not depend
    on what was fastest that day. `threads` are those of the measurement that `auto` makes, by
    default as many as PyTorch has; each call takes as many as PyTorch has where it is made.

    Raises:
        BundleError: the bundle or this machine has no such runtime.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "auto",
        runtime: Runtime = "torch",
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.tokenizer = bundle.tokenizer()
        self.reader = Reader(bundle.filler(), bundle.max_length, bundle.keep_head, bundle.head.wide)
        threads = threads or torch.get_num_threads()
        self._choice: Choice = choose(bundle, self.reader, runtime, precision, threads)

    @property
    def forward(self) -> Forward:
        """What runs."""
        return self._choice.forward

    @property
    def runtime(self) -> RuntimeName:
        """Of `forward`."""
        return self.forward.runtime

    @property
    def precision(self) -> PrecisionName:
        """Of `forward`."""
        return self.forward.precision

    @property
    def measured(self) -> dict[str, float]:
        """Milliseconds of each runtime that was timed; empty where none was."""
        return self._choice.measured

    @cached_property
    def model(self) -> MailModel:
        """The model in PyTorch, whatever runs: explanations go through its layers."""
        forward = self.forward
        return forward.model if isinstance(forward, TorchForward) else self.bundle.model()

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
            if batch and lengths[row] * (len(batch) + 1) > self.forward.batch_tokens:
                scores[batch] = self._forward([tokens[i] for i in batch])
                batch = []
            batch.append(row)
        if batch:
            scores[batch] = self._forward([tokens[i] for i in batch])
        return calibrated(scores, self.bundle.temperature, multi=self.bundle.head.multi)

    def _forward(self, tokens: Sequence[list[int]]) -> np.ndarray:
        logits = self.forward(*self.reader(tokens))
        return self.bundle.head.probabilities(logits).numpy()
