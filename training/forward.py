"""Forwards: the ways to run a bundle's model, and the choice of the fastest on this machine.

    torch   PyTorch in bf16 or fp32, on the GPU where there is one
    onnx    ONNX Runtime on the CPU in fp32 or int8, of a bundle that `mailray export` has made

The wide part runs in PyTorch beside either: its n-grams are hashed and counted outside of a graph
anyhow, and what is left are some hundred multiplications.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from training.bundle import Bundle, BundleError, OnnxPrecision
from training.tensors import Reader
from training.wide import Grams

Runtime = Literal["auto", "torch", "onnx"]
Precision = Literal["auto", "bf16", "fp32", "int8"]

PROBES: Final = ((1, 0.25), (1, 1.0), (4, 1.0))
"""What is timed: so many mails, of that share of the tokens that the encoder reads."""
BUDGET_S: Final = 0.6
"""Of timing, beside loading and a first forward of each; a round is always finished, and a second
one begun unless the first took three times this long."""
MARGIN: Final = 0.9
"""A less exact forward must take this share of the time at most, or it is not worth it."""
_CPU_TOKENS: Final = 8_192
"""The activations of a base model stay below 1 GiB."""
_GPU_TOKENS: Final = 32_768
"""Mails/s of MiniLM on an H200: 11,500 by 8,192 tokens, 17,100 by 16,384, 21,300 by 32,768, 19,300
by 65,536."""
_MISSING: Final = "onnxruntime is not installed: pip install 'mailray[onnx]'"

logger = logging.getLogger(__name__)


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


class Choice(NamedTuple):
    """The forward that was taken, and why."""

    forward: Forward
    measured: dict[str, float]
    """Milliseconds of the probes for each candidate, as `onnx int8`; empty where there was one."""


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
            raise BundleError(_MISSING)
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


def choose(
    bundle: Bundle, reader: Reader, runtime: Runtime, precision: Precision, threads: int
) -> Choice:
    """The forward that is asked for; of several the fastest by a short measurement.

    Raises:
        BundleError: the bundle or this machine has none of that kind.
    """
    makers = candidates(bundle, runtime, precision)
    if len(makers) == 1:
        return Choice(makers[0](), {})
    forwards = [make() for make in makers]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        choice = fastest(forwards, probes(reader, bundle.tokenizer().get_vocab_size()))
    finally:
        torch.set_num_threads(before)
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in choice.measured.items())
    logger.info("runtime %s: %s", called(choice.forward), told)
    return choice


def candidates(
    bundle: Bundle, runtime: Runtime, precision: Precision
) -> list[Callable[[], Forward]]:
    """What can be loaded, the most exact first.

    Raises:
        BundleError: nothing.
    """
    found: list[Callable[[], Forward]] = []
    if runtime in ("auto", "torch") and precision != "int8":
        of_torch: Any = precision
        if precision == "auto":
            of_torch = "bf16" if bf16_pays() else "fp32"
        found.append(lambda: TorchForward(bundle, of_torch))
    # A GPU is ahead of any CPU: nothing has to be timed there.
    if runtime == "onnx" or (runtime == "auto" and not (found and torch.cuda.is_available())):
        kinds = sorted(export.precision for export in bundle.exports)  # fp32 before int8
        if runtime == "auto" and found and kinds and not installed():
            logger.warning("%s; its ONNX models are left unused", _MISSING)
            kinds = []
        for kind in kinds:
            if precision in ("auto", kind):
                found.append(lambda kind=kind: OnnxForward(bundle, kind))  # type: ignore[misc]
    if not found:
        has = ["torch bf16", "torch fp32", *(f"onnx {e.precision}" for e in bundle.exports)]
        raise BundleError(
            f"{bundle.path} has no runtime={runtime} with precision={precision}; it has "
            f"{', '.join(has)}. `mailray export --runtime onnx [--int8]` makes others"
        )
    return found


def installed() -> bool:
    """Whether there is an ONNX Runtime."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def called(forward: Forward) -> str:
    """As `onnx int8`."""
    return f"{forward.runtime} {forward.precision}"


Probe = tuple[Tensor, Tensor | None, Grams | None]


def probes(reader: Reader, vocabulary: int) -> list[Probe]:
    """Made-up mails of typical lengths."""
    chance = np.random.default_rng(0)
    return [
        reader([
            chance.integers(0, vocabulary, max(2, round(reader.max_length * share))).tolist()
            for _ in range(mails)
        ])
        for mails, share in PROBES
    ]  # fmt: skip


def fastest(
    forwards: Sequence[Forward],
    probes: Sequence[Probe],
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """The fastest forward, where a less exact one, which comes later, has to be much faster.

    The forwards take turns, so that other work on the machine slows all of them; the shortest time
    of each probe counts.
    """
    for forward in forwards:
        for probe in probes:
            forward(*probe)  # what is set up at first
    best = [[math.inf] * len(probes) for _ in forwards]
    began = clock()
    for rounds in itertools.count(1):
        for forward, times in zip(forwards, best, strict=True):
            for at, probe in enumerate(probes):
                start = clock()
                forward(*probe)
                times[at] = min(times[at], clock() - start)
        if clock() - began >= (BUDGET_S if rounds > 1 else 3 * BUDGET_S):
            break
    spent = [1000 * sum(times) for times in best]
    chosen = 0
    for at in range(1, len(forwards)):
        if spent[at] <= MARGIN * spent[chosen]:
            chosen = at
    measured = {called(f): round(ms, 2) for f, ms in zip(forwards, spent, strict=True)}
    return Choice(forwards[chosen], measured)
