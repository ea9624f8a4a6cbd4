"""Graphs: a model's encoder and head as ONNX, in fp32 and in int8 of two kinds.

Inputs `ids` and `mask` are int64 [mails, tokens], both of any size; output `logits` is float32
[mails, logits]. The wide part is not among them (training/forward.py).

Weights become int8 per channel, once, to 7 of the 8 bits, since two products of more overflow on a
CPU without VNNI, where a model would then score otherwise.

    for ONNX Runtime    its dynamic quantization: activations are measured in each forward;
                        attention's products, which have no weights, and the head stay fp32
    for OpenVINO        NNCF's static quantization: activations have ranges that are fitted on some
                        mails, after their outliers are smoothed into the weights (SmoothQuant)
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from training.bundle import Bundle, GraphRuntime
from training.forward import silence_openvino

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


def require(runtime: GraphRuntime) -> None:
    """Refuse where what makes and runs graphs for it is not installed.

    Raises:
        ExportError: with what to install.
    """
    silence_openvino()
    modules, extras = ["onnx", "onnxruntime", "onnxscript"], "onnx"
    if runtime == "openvino":
        modules, extras = [*modules, "openvino", "nncf"], "onnx,openvino"
    try:
        for module in modules:
            import_module(module)
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed: pip install 'mailray[{extras}]'"
        ) from error


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


def write_dynamic_int8(fp32: Path, file: Path) -> None:
    """Write the graph in `fp32` in int8 for ONNX Runtime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            fp32, file, op_types_to_quantize=list(_QUANTIZED), per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip


def write_static_int8(fp32: Path, file: Path, mails: Iterable[dict[str, np.ndarray]]) -> None:
    """Write the graph in `fp32` in int8 for OpenVINO; `mails` are inputs to fit its ranges on."""
    silence_openvino()
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    inputs = list(mails)
    with _quiet():
        graph = nncf.quantize(
            onnx.load(fp32),
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,  # of activations on both sides of 0, or not
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
        onnx.save(graph, file)


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
