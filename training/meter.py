"""How fast a worker trains, and how much of what its device can do the model gets."""

import time
from collections import deque
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from training.attention import BLOCKED
from training.batches import Batch, Micro
from training.model import MailModel
from training.scorer import bf16_pays
from training.wide import grams

WINDOW: Final = 30.0
"""Seconds of step time that the figures are of."""
_PEAK_SECONDS: Final = 0.05
_peaks: dict[torch.device, float] = {}
"""The highest of each device so far."""


class Meter:
    """The figures of a rank's last steps; made anew for each epoch.

    Model-FLOPs utilization (`mfu`) is as Chowdhery et al. 2022 (PaLM), appendix B, define it: the
    FLOPs that the model itself asks for in a second, forward and backward, over the device's peak.
    Padding, and anything computed twice, is no model FLOP. The peak is not a data sheet's but that
    of a large matrix product in the dtype of mixed precision here (bf16 where it pays, else
    float32), timed when the Meter is made, with the threads that the process has.
    """

    def __init__(self, model: MailModel, world: int) -> None:
        self.work, self.world = Work(model), world
        self.peak = highest_peak(model.head.weight.device)
        self.trained = 0.0
        self.steps: deque[np.ndarray] = deque()
        self.sums = np.zeros(5)

    def add(self, batch: Batch, seconds: float) -> None:
        """A step, and how long it took."""
        parts = batch.parts
        real, positions = sum(p.real for p in parts), sum(p.ids.numel() for p in parts)
        flops = sum(map(self.work.flops, parts))
        step = np.array([seconds, batch.size, real, positions, flops], np.float64)
        self.steps.append(step)
        self.sums += step
        self.trained += seconds
        while self.sums[0] - self.steps[0][0] >= WINDOW:
            self.sums -= self.steps.popleft()

    def facts(self) -> dict[str, float]:
        """The window's figures; empty before the first step.

        `mails_per_second` and `tokens_per_second` (real ones) are of all ranks, which have equal
        shares; `padding` is a share of this rank's token positions, `step_seconds` a mean;
        `trained_seconds` is the time of all steps, also those that have left the window.
        """
        if not self.steps:
            return {}
        seconds, mails, real, positions, flops = self.sums.tolist()
        return {
            "mails_per_second": mails / seconds,
            "tokens_per_second": self.world * real / seconds,
            "padding": 1 - real / positions,
            "step_seconds": seconds / len(self.steps),
            "mfu": flops / seconds / self.peak,
            "trained_seconds": self.trained,
        }


class Work(TorchFunctionMode):
    """The FLOPs of forward and backward, counted from the matrices of the model's products.

    A multiply-add is 2 FLOPs. Backward is a product as large as forward's for each operand that
    needs a gradient: none below the lowest trainable layer, one in a frozen layer above it.

    Which product is made of which matrices, and what needs a gradient, is listened to in one
    forward of a few made-up tokens.
    """

    per_token = 0.0
    """Products with the weights of each layer."""
    per_mail = 0.0
    """Those after pooling: the head."""
    per_pair = 0.0
    """Attention's two products, for each pair of tokens of a mail."""

    def __init__(self, model: MailModel) -> None:
        super().__init__()
        self.ids = torch.ones(2, 3, dtype=torch.int64, device=model.head.weight.device)
        mode, settings = model.training, cast("Any", model.encoder.config)
        kernel = settings._attn_implementation
        model.eval()  # dropout would draw random numbers
        if kernel == BLOCKED:  # whose products are not seen from here
            settings._attn_implementation = "sdpa"
        with torch.enable_grad(), self:
            words = None if model.wide is None else grams(self.ids.tolist(), model.wide.buckets)
            model(self.ids, None, None if words is None else words.to(self.ids.device))
        settings._attn_implementation = kernel
        model.train(mode)

    def flops(self, part: Micro) -> float:
        """Of forward and backward of a micro-batch, its padding left out."""
        mails, longest = len(part.rows), part.ids.shape[1]
        squares = mails * longest**2
        if part.mask is not None:
            squares = int(part.mask.sum(1).square().sum())
        return self.per_token * part.real + self.per_mail * mails + self.per_pair * squares

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        mails, tokens = self.ids.shape
        if func is nn.functional.linear:
            given, weight = args[:2]
            flops = 2 * given.numel() * weight.shape[0] * _passes(given, weight)
            if given.numel() == mails * tokens * weight.shape[1]:
                self.per_token += flops / (mails * tokens)
            else:
                self.per_mail += flops / mails
        elif func is nn.functional.scaled_dot_product_attention:
            query, key, _ = args[:3]
            self.per_pair += 4 * query.numel() / (mails * tokens) * _passes(query, key)
        elif func is torch.matmul and args[0].ndim == 4:  # one of the two of eager attention
            flops = 2 * args[0].numel() * args[1].shape[-1] * _passes(*args)
            self.per_pair += flops / (mails * tokens**2)
        return func(*args, **(kwargs or {}))


def highest_peak(device: torch.device) -> float:
    """The highest `peak_flops` that this process has timed, now or before.

    At the start of an epoch batches are made and checkpoints written beside it, and halve it.
    """
    _peaks[device] = max(_peaks.get(device, 0.0), peak_flops(device))
    return _peaks[device]


def peak_flops(device: torch.device) -> float:
    """FLOPs a second of the fastest of some large matrix products, timed for about 50 ms."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if bf16_pays() else torch.float32
    source = torch.Generator(device).manual_seed(0)  # leaves the training's random numbers alone
    left = torch.rand(size, size, generator=source, device=device).to(dtype)
    times: list[float] = []
    while len(times) < 2 or sum(times) < _PEAK_SECONDS:  # the first also loads the kernel
        began = time.perf_counter()
        torch.mm(left, left)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def _passes(*operands: torch.Tensor) -> int:
    """Forward, and a product of backward for each operand that needs a gradient."""
    return 1 + sum(operand.requires_grad for operand in operands)
