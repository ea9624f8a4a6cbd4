"""PyTorch's attention kernels on one GPU, at the lengths of mails.

    python -m tests.bench.gpu_attention

Forward and backward of one layer of a base model (12 heads of 64) in bf16 with dropout 0.1; `auto`
is what PyTorch takes by itself. Times are medians by CUDA's events, after five calls of the same
shape: a kernel that is planned anew for each shape looks better here than it is. The last line
printed is one JSON object.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

DEVICE: Final = "cuda"
HEADS: Final = 12
WIDTH: Final = 64
SHAPES: Final = ((16, 128), (64, 128), (16, 512), (64, 512))
"""Mails and tokens of a batch."""
SHORTEST: Final = {"whole": 1.0, "sorted": 0.9, "shuffled": 0.1}
"""Of a batch's mails, as a share of the longest; lengths are evenly spread between."""
BACKENDS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def lengths_of(mails: int, tokens: int, shortest: float) -> np.ndarray:
    """int64 [mails]"""
    return np.linspace(tokens * shortest, tokens, mails).round().astype(np.int64)


def milliseconds(call: Callable[[], object], repeats: int = 30) -> float:
    """The median on the device."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(median(times))


def attention() -> dict[str, Any]:
    """Milliseconds of forward and backward of one layer's attention, bf16, with dropout 0.1."""
    found: dict[str, Any] = {}
    for mails, tokens in SHAPES:
        for padding, shortest in SHORTEST.items():
            mask = None
            if shortest < 1:
                ends = torch.as_tensor(lengths_of(mails, tokens, shortest), device=DEVICE)
                real = torch.arange(tokens, device=DEVICE) < ends[:, None]
                mask = real[:, None, None].expand(mails, 1, tokens, tokens)
            found[f"{mails} x {tokens}, {padding}"] = _kernels(mails, tokens, mask)
    return {"attention_ms": found}


def _kernels(mails: int, tokens: int, mask: torch.Tensor | None) -> dict[str, float]:
    shape = (mails, HEADS, tokens, WIDTH)
    given = [torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    q, k, v = (part.requires_grad_() for part in given)
    gradient = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)

    def fused() -> None:
        scaled_dot_product_attention(q, k, v, mask, dropout_p=0.1).backward(gradient)

    def eager() -> None:
        scores = q @ k.transpose(2, 3) * WIDTH**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = torch.dropout(torch.softmax(scores, -1, torch.float32).to(q.dtype), 0.1, True)
        (weights @ v).backward(gradient)

    times = {"auto": milliseconds(fused), "eager": milliseconds(eager)}
    for name, backend in BACKENDS.items():
        # Not for such masks, or not with dropout.
        with contextlib.suppress(RuntimeError), sdpa_kernel(backend):
            times[name] = milliseconds(fused)
    return {name: round(ms, 3) for name, ms in times.items()}


def about(bench: str) -> dict[str, Any]:
    """What was measured, when and where."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    return {
        "bench": bench,
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def main() -> None:
    """Run it, and print one JSON line last."""
    sys.stdout.write(json.dumps(about("gpu_attention") | attention()) + "\n")


if __name__ == "__main__":
    main()
