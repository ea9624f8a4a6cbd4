"""Which forward runs: the one that is asked for, of several the fastest on this machine."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from training.bundle import KINDS, Bundle, BundleError, GraphRuntime
from training.forward import Forward, GraphForward, TorchForward, bf16_pays, missing
from training.tensors import Reader
from training.wide import Grams

Runtime = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["auto", "bf16", "fp32", "int8"]
GRAPHS: Final[tuple[GraphRuntime, ...]] = get_args(GraphRuntime)

PROBES: Final = ((1, 0.25), (1, 1.0), (4, 1.0))
"""What is timed: so many mails, of that share of the tokens that the encoder reads."""
BUDGET_S: Final = 0.6
"""Of timing, beside loading and a first forward of each; a round is always finished, and a second
one begun unless the first took three times this long."""
MARGIN: Final = 0.9
"""A less exact forward must take this share of the time at most, or it is not worth it."""

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """The forward that was taken, and why."""

    forward: Forward
    measured: dict[str, float]
    """Milliseconds of the probes for each candidate, as `onnx int8`; empty where there was one."""


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
    if not (found and torch.cuda.is_available()):
        found += _graphs(bundle, runtime, precision, needed=not found)
    if not found:
        has = ["torch bf16", "torch fp32", *(str(export.kind) for export in bundle.exports)]
        raise BundleError(
            f"{bundle.path} has no runtime={runtime} with precision={precision}; it has "
            f"{', '.join(has)}. `mailray export --runtime {'|'.join(GRAPHS)}` makes others"
        )
    return found


def _graphs(
    bundle: Bundle, runtime: Runtime, precision: Precision, *, needed: bool
) -> list[Callable[[], Forward]]:
    """Those of its exports that are asked for; where others will do, only those that run here."""
    exported = {export.kind for export in bundle.exports}
    kinds = [
        kind
        for kind in KINDS
        if kind in exported
        and runtime in ("auto", kind.runtime)
        and precision in ("auto", kind.precision)
    ]
    faults = {kind: fault for kind in kinds if (fault := missing(kind.runtime))}
    if runtime == "auto" and not (needed and len(faults) == len(kinds)):
        for fault in sorted(set(faults.values())):
            logger.warning("%s; what the model has for it is left unused", fault)
        kinds = [kind for kind in kinds if kind not in faults]
    return [partial(GraphForward, bundle, kind) for kind in kinds]


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
