"""Forwards: the ways to run a bundle's model (training/choice.py takes one).

    torch       PyTorch in bf16 or fp32, on the GPU where there is one
    onnx        ONNX Runtime on the CPU in fp32 or int8, of a bundle that `mailray export` has made
    openvino    OpenVINO on the CPU in int8, of such a bundle

The wide part runs in PyTorch beside any: its n-grams are hashed and counted outside of a graph
anyhow, and what is left are some hundred multiplications.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from threading import Lock
from typing import Final, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from training.bundle import Bundle, BundleError, GraphRuntime, Kind
from training.wide import Grams

_CPU_TOKENS: Final = 8_192
"""The activations of a base model stay below 1 GiB."""
_GPU_TOKENS: Final = 32_768
"""Mails/s of MiniLM on an H200: 11,500 by 8,192 tokens, 17,100 by 16,384, 21,300 by 32,768, 19,300
by 65,536."""
_STEP: Final = 16
"""Lengths for OpenVINO are multiples of this, since it keeps what it makes for each shape: 1.4 MiB
of MiniLM, without an end. By sixteens a session grows by 100 MiB, and soon meets no new shapes."""
_SHAPES: Final = 1_000
"""What it keeps at most, some tens for each shape. A session for mails of up to 512 tokens has 335
MiB with 300 and 445 with 5,000; the first is 5% slower."""

RuntimeName = Literal["torch", "onnx", "openvino"]
PrecisionName = Literal["bf16", "fp32", "int8"]


class Forward(Protocol):
    """A model that is ready to run."""

    @property
    def runtime(self) -> RuntimeName: ...

    @property
    def precision(self) -> PrecisionName: ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of one call at most, padding included."""

    def __call__(self, ids: Tensor, mask: Tensor | None, grams: Grams | None) -> Tensor:
        """Logits as `MailModel.forward` gives them, on the CPU."""


def bf16_pays() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware (CUDA, AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class TorchForward:
    """PyTorch."""

    runtime: Literal["torch"] = "torch"

    def __init__(self, bundle: Bundle, precision: Literal["bf16", "fp32"]) -> None:
        self.precision = precision
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = bundle.model().to(self.device)
        self.batch_tokens = _GPU_TOKENS if self.device.type == "cuda" else _CPU_TOKENS
        # Converted weights beat autocast, which casts them anew in each forward.
        for part in (self.model.encoder, self.model.head):
            part.to(torch.bfloat16 if precision == "bf16" else torch.float32)

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor | None, grams: Grams | None) -> Tensor:
        """Logits as `MailModel.forward` gives them, on the CPU."""
        logits: Tensor = self.model(
            ids.to(self.device),
            None if mask is None else mask.to(self.device),
            None if grams is None else grams.to(self.device),
        )
        return logits.cpu()


class GraphForward:
    """A graph on the CPU, with as many threads as PyTorch has where it is called.

    Raises:
        BundleError: its runtime is not installed, or the file is damaged or of another model.
    """

    batch_tokens = 1_024
    """What caches hold of the activations: MiniLM in int8, mails of 128 tokens, on one thread of
    ONNX Runtime, takes 12.5 ms a mail by fours, 13.7 by sixteens and 15.5 by 64."""

    def __init__(self, bundle: Bundle, kind: Kind) -> None:
        if fault := missing(kind.runtime):
            raise BundleError(fault)
        self.runtime, self.precision = kind
        make = partial(_onnx if kind.runtime == "onnx" else _openvino, bundle.graph(kind))
        self._sessions = _Sessions(make, shared=kind.runtime == "onnx")
        self._step = 1 if kind.runtime == "onnx" else _STEP
        self._longest, self._filler = bundle.max_length, bundle.filler()
        self.wide = bundle.wide()

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor | None, grams: Grams | None) -> Tensor:
        """Logits as `MailModel.forward` gives them, on the CPU."""
        whole = torch.ones_like(ids) if mask is None else mask
        length = ids.shape[1]
        if more := min(-length % self._step, self._longest - length):
            ids, whole = pad(ids, (0, more), value=self._filler), pad(whole, (0, more))
        with self._sessions.of(torch.get_num_threads()) as session:
            logits = torch.from_numpy(session({"ids": ids.numpy(), "mask": whole.numpy()}))
        if self.wide is not None:
            assert grams is not None, "a wide part reads n-grams"
            logits = logits + self.wide(grams)
        return logits


Session = Callable[[dict[str, np.ndarray]], np.ndarray]
"""From a graph's inputs to its logits."""


class _Sessions:
    """Sessions of one model by their number of threads, made when they are needed.

    A session serves one caller at a time: its threads are a pool of its own, in which forwards at
    once stand in each other's way. `shared`: one without a pool serves all callers.
    """

    def __init__(self, make: Callable[[int], Session], *, shared: bool) -> None:
        self._make = make
        self._shared = shared
        self._idle: dict[int, list[Session]] = {}
        self._lock = Lock()

    @contextmanager
    def of(self, threads: int) -> Iterator[Session]:
        """One with so many threads, for as long as the block runs."""
        kept = self._shared and threads == 1
        with self._lock:
            idle = self._idle.setdefault(threads, [])
            if not idle:
                idle.append(self._make(threads))
            session = idle[0] if kept else idle.pop()
        try:
            yield session
        finally:
            if not kept:
                idle.append(session)


def _onnx(model: bytes, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Between two forwards the cores belong to the tokenizer and the API.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        # Its fused kernel takes five times as long as the two that it stands for.
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(model: bytes, threads: int) -> Session:
    """What is not int8 in the graph is computed in bf16 where the hardware does."""
    silence_openvino()
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _SHAPES,
    }
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    # The next forward writes where this one did.
    return lambda inputs: request.infer(inputs, share_inputs=True)[0].copy()


def silence_openvino() -> None:
    """Keep it from telling its makers that it was imported; call it before."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def missing(runtime: GraphRuntime) -> str:
    """What to install for a runtime; empty where it is there."""
    if runtime == "openvino":
        silence_openvino()
    module = {"onnx": "onnxruntime", "openvino": "openvino"}[runtime]
    try:
        import_module(module)
    except ImportError:
        return f"{module} is not installed: pip install 'mailray[{runtime}]'"
    return ""
