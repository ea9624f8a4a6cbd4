"""Forwards: the ways to run a bundle's model (training/choice.py takes one).

    torch   PyTorch in bf16 or fp32, on the GPU where there is one
    onnx    ONNX Runtime on the CPU in fp32 or int8, of a bundle that `mailray export` has made

The wide part runs in PyTorch beside either: its n-grams are hashed and counted outside of a graph
anyhow, and what is left are some hundred multiplications.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Final, Literal, Protocol

import torch
from torch import Tensor

from training.bundle import Bundle, BundleError, OnnxPrecision
from training.wide import Grams

_CPU_TOKENS: Final = 8_192
"""The activations of a base model stay below 1 GiB."""
_GPU_TOKENS: Final = 32_768
"""Mails/s of MiniLM on an H200: 11,500 by 8,192 tokens, 17,100 by 16,384, 21,300 by 32,768, 19,300
by 65,536."""
MISSING: Final = "onnxruntime is not installed: pip install 'mailray[onnx]'"


class Forward(Protocol):
    """A model that is ready to run."""

    @property
    def runtime(self) -> Literal["torch", "onnx"]: ...

    @property
    def precision(self) -> Literal["bf16", "fp32", "int8"]: ...

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


class OnnxForward:
    """ONNX Runtime on the CPU, with as many threads as PyTorch has where it is called.

    Raises:
        BundleError: onnxruntime is not installed, or the file is damaged or of another model.
    """

    runtime: Literal["onnx"] = "onnx"
    batch_tokens = 1_024
    """What caches hold of the activations: MiniLM in int8, mails of 128 tokens, on one thread,
    takes 12.5 ms a mail by fours, 13.7 by sixteens and 15.5 by 64."""

    def __init__(self, bundle: Bundle, precision: OnnxPrecision) -> None:
        if not installed():
            raise BundleError(MISSING)
        self.precision = precision
        self._sessions = _Sessions(partial(_session, bundle.onnx(precision)))
        self.wide = bundle.wide()

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor | None, grams: Grams | None) -> Tensor:
        """Logits as `MailModel.forward` gives them, on the CPU."""
        whole = torch.ones_like(ids) if mask is None else mask
        with self._sessions.of(torch.get_num_threads()) as session:
            [found] = session.run(None, {"ids": ids.numpy(), "mask": whole.numpy()})
        logits: Tensor = torch.from_numpy(found)
        if self.wide is not None:
            assert grams is not None, "a wide part reads n-grams"
            logits = logits + self.wide(grams)
        return logits


class _Sessions:
    """Sessions of one model by their number of threads, made when they are needed.

    A session's threads are a pool of its own, in which forwards at once stand in each other's way:
    one with several serves one caller at a time. One without a pool serves them all.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make
        self._idle: dict[int, list[Any]] = {}
        self._lock = Lock()

    @contextmanager
    def of(self, threads: int) -> Iterator[Any]:
        """One with so many threads, for as long as the block runs."""
        with self._lock:
            idle = self._idle.setdefault(threads, [])
            if not idle:
                idle.append(self._make(threads))
            session = idle[0] if threads == 1 else idle.pop()
        try:
            yield session
        finally:
            if threads > 1:
                idle.append(session)


def _session(model: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Between two forwards the cores belong to the tokenizer and the API.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        # Its fused kernel takes five times as long as the two that it stands for.
        disabled_optimizers=["SkipLayerNormFusion"],
    )


def installed() -> bool:
    """Whether there is an ONNX Runtime."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True
