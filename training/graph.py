"""Graphs: a model's encoder and head as ONNX, in fp32 and with int8 weights.

Inputs `ids` and `mask` are int64 [mails, tokens], both of any size; output `logits` is float32
[mails, logits]. The wide part is not among them (training/forward.py).

int8 is ONNX Runtime's dynamic quantization: weights per channel, once, to 7 of the 8 bits, since
two products of more overflow on a CPU without VNNI, where a model would then score otherwise;
activations per forward. Attention's products, which have no weights, and the head stay fp32.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.bundle import Bundle

_MOST_BYTES: Final = 2_000_000_000
"""What one protobuf message can hold."""
_QUANTIZED: Final = ("MatMul", "Gather")
"""Operators whose weights become int8: the layers' and the embeddings'."""


class ExportError(RuntimeError):
    """A model is not exported; the message says why."""


class _Graph(nn.Module):
    """What becomes a graph."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model()
        self.model.wide = None
        encoder: Any = self.model.encoder
        # Plain products: blocks are loops, and the fused kernel's graph is padded with checks.
        encoder.set_attn_implementation("eager")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(ids, mask)
        return logits


def require() -> None:
    """Refuse where what makes graphs is not installed.

    Raises:
        ExportError: with what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"{error.name} is not installed: pip install 'mailray[onnx]'") from error


def write_fp32(bundle: Bundle, file: Path) -> None:
    """Write the graph of a bundle.

    Raises:
        ExportError: the encoder is too large, or has what ONNX cannot say.
    """
    graph = _Graph(bundle).eval()
    size = sum(weight.numel() * weight.element_size() for weight in graph.parameters())
    if size > _MOST_BYTES:
        raise ExportError(f"{bundle.path}: {size:,} bytes of weights, ONNX takes {_MOST_BYTES:,}")
    # Two mails, one of them padded: a size of 1 would be taken for a constant.
    tokens = max(2, bundle.max_length // 2)
    ids = torch.full((2, tokens), bundle.filler(), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 :] = 0
    axes = {
        0: torch.export.Dim("mails", min=1, max=2**20),
        1: torch.export.Dim("tokens", min=2, max=bundle.max_length),
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                graph, (ids, mask), dynamo=True, verbose=False,
                input_names=["ids", "mask"], output_names=["logits"],
                dynamic_shapes={"ids": axes, "mask": axes},
            )  # fmt: skip
            assert program is not None
            program.save(str(file), external_data=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExportError(
            f"{bundle.path}: this encoder cannot be exported: {str(error).splitlines()[0]}"
        ) from error


def write_int8(fp32: Path, file: Path) -> None:
    """Write the graph in `fp32` with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            fp32, file, op_types_to_quantize=list(_QUANTIZED), per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries tell of what is none of the user's business."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
