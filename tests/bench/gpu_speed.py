"""What one GPU does: training steps, and serving.

    python -m tests.bench.gpu_speed training MODEL [--length 512] [--size 16] [--steps 30]
    python -m tests.bench.gpu_speed serving BUNDLE CORPUS [--mails 2000]

MODEL is as `model.name`; `bert-base` is one of that shape with random weights. CORPUS is the folder
of the fetched SpamAssassin corpus. Training is the loop's own step on made-up tokens: batches
without padding, and with as much as those of a plan that sorts by length. FLOPs are the model's,
the peak is that of a data sheet: 989 TFLOP/s, an H100's and an H200's in dense bf16. Times are
medians by the clock. The last line printed is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch

from tests.bench.gpu_attention import DEVICE, SHORTEST, about, lengths_of, milliseconds

PEAK: Final = 989e12
BATCH_TOKENS: Final = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
CLIENTS: Final = (1, 16, 64, 256)
WAYS: Final = (
    ("bf16", "auto", True), ("bf16", "auto", False), ("bf16", "eager", True),
    ("fp32", "auto", True),
)  # fmt: skip
"""Precision, attention, and whether kernels give the same bits each time."""


def training(model: str, length: int, size: int, steps: int) -> dict[str, Any]:
    """Tokens a second, of the peak, and memory of the loop's step in each way to run it."""
    rows = []
    with _weights(model) as place:
        for padding in ("whole", "sorted"):
            for precision, kernel, same_bits in WAYS:
                row = {"padding": padding, "precision": precision, "attention": kernel}
                row["deterministic"] = str(same_bits).lower()
                row |= _steps(place, length, size, steps, **row)
                sys.stderr.write(f"{json.dumps(row)}\n")
                rows.append(row)
    return {"model": model, "length": length, "size": size, "steps": rows}


@contextlib.contextmanager
def _weights(model: str) -> Iterator[str]:
    if model != "bert-base":
        yield model
        return
    from transformers import BertConfig, BertModel

    with tempfile.TemporaryDirectory() as folder:
        BertModel(BertConfig()).save_pretrained(folder)
        yield folder


def _steps(
    place: str, length: int, size: int, steps: int, *,
    padding: str, precision: str, attention: str, deterministic: str,
) -> dict[str, Any]:  # fmt: skip
    """Twice from the same start: the first time measured, the second compared with."""
    from training import loop
    from training.config import resolve
    from training.meter import Work

    config = resolve(overrides=[
        f"model.name={place}", "data.wide_length=0", "data.max_length=512", "model.freeze=0",
        "model.dropout=0.1", f"model.attention={attention}", f"scaling.precision={precision}",
        "scaling.gpu=true", "optimizer.lr=2e-5", f"scaling.deterministic={deterministic}",
    ])  # fmt: skip
    digests, result = [], {}
    for again in (False, True):
        loop._settle(config)
        worker, batches = _worker(config, length, size, padding, steps)
        torch.cuda.reset_peak_memory_stats()
        times = []
        for batch in batches:
            began = time.perf_counter()
            worker.step(batch)
            times.append(time.perf_counter() - began)
        if not again:
            real, flops = batches[0].parts[0].real, Work(worker.raw).flops(batches[0].parts[0])
            seconds = median(times[5:])
            result = {
                "step_ms": round(1000 * seconds, 2),
                "tokens_per_second": round(real / seconds),
                "mails_per_second": round(size / seconds, 1),
                "mfu": round(flops / seconds / PEAK, 4),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            }
        digests.append([float(p.detach().double().sum()) for p in worker.raw.parameters()])
    return result | {"same_twice": digests[0] == digests[1]}


def _worker(config: Any, length: int, size: int, padding: str, steps: int) -> tuple[Any, list[Any]]:
    """The loop's worker, alone, and its batches."""
    from training import loop
    from training.batches import Batch, _micro
    from training.checkpoint import State
    from training.losses import Loss
    from training.model import build
    from training.optimizer import make_optimizer
    from training.seat import Seat
    from training.tensors import Reader

    seat = Seat.alone(lambda facts: None)
    raw = build(config.model, 2, 512)
    model = seat.prepare(raw)
    optimizer, schedule = make_optimizer(raw, config.optimizer, steps)
    loss = Loss(config.optimizer, raw.shape, np.array([1, 1]), 2)
    job: Any = SimpleNamespace(config=config)
    parts: Any = (State(), None, None, None, None)
    worker = loop.Worker(job, seat, raw, model, optimizer, schedule, loss, *parts)
    chance, reader = np.random.default_rng(0), Reader(0, 512, 0.75, 0)
    batches = []
    for step in range(steps):
        mails = [
            chance.integers(1000, 30_000, n) for n in lengths_of(size, length, SHORTEST[padding])
        ]
        part = _micro(
            mails, np.arange(size), chance.integers(0, 2, size), reader, torch.cuda.is_available()
        )
        batches.append(Batch(0, step, size, [part]))
    model.train()
    return worker, batches


def serving(bundle: Path, corpus: Path, most: int) -> dict[str, Any]:
    """One mail's time, mails a second by batch, and through the batcher."""
    from serving.classifier import Classifier
    from tests.bench.bulk_speed import texts_of

    texts = texts_of(bundle, corpus)
    texts = [texts[at] for at in np.random.default_rng(0).permutation(len(texts))[:most]]
    classifier = Classifier(bundle)
    scorer, forward = classifier.scorer, classifier.scorer.forward
    default = forward.batch_tokens
    began = time.perf_counter()
    tokens = [scorer.tokens([text])[0] for text in texts]
    tokenizing = len(texts) / (time.perf_counter() - began)
    scorer.score(tokens)
    alone = []
    for of_mail in tokens[:200]:
        began = time.perf_counter()
        scorer.score([of_mail])
        alone.append(1000 * (time.perf_counter() - began))
    rates = {}
    for budget in BATCH_TOKENS:
        forward.batch_tokens = budget  # type: ignore[misc]
        scorer.score(tokens)
        began = time.perf_counter()
        scorer.score(tokens)
        rates[budget] = round(len(tokens) / (time.perf_counter() - began))
    prepared = scorer.reader(tokens[:256])
    ahead = milliseconds(lambda: scorer.reader(tokens[:256]), 5)
    device = torch.device(DEVICE)
    on_device: Any = [None if part is None else part.to(device) for part in prepared]
    only = milliseconds(lambda: forward(*on_device))
    found = {
        "precision": scorer.precision,
        "tokenize_one_thread": round(tokenizing),
        "one_mail_ms": {"p50": round(median(alone), 2), "p99": round(sorted(alone)[-3], 2)},
        "mails_per_second_by_batch_tokens": rates,
        "of_256_mails_ms": {"tensors": round(ahead, 1), "forward": round(only, 1)},
    }
    forward.batch_tokens = default  # type: ignore[misc]
    return found | {"batcher": {n: asyncio.run(_load(classifier, texts, n)) for n in CLIENTS}}


async def _load(classifier: Any, texts: Sequence[str], clients: int) -> dict[str, float]:
    """Clients that each ask again when they are answered."""
    from serving.batcher import Batcher

    batcher = Batcher(classifier, threads=4, max_queued=10_000)
    left = iter(texts[: 200 if clients == 1 else len(texts)])
    times: list[float] = []

    async def client() -> None:
        for text in left:
            began = time.perf_counter()
            await batcher.classify(text)
            times.append(1000 * (time.perf_counter() - began))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    batcher.close()
    times.sort()
    return {
        "mails_per_second": round(len(times) / seconds),
        "p50_ms": round(median(times), 1),
        "p99_ms": round(times[int(0.99 * len(times))], 1),
    }


def main() -> None:
    """Run one part, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parts = parser.add_subparsers(dest="part", required=True)
    of_training = parts.add_parser("training")
    of_training.add_argument("model")
    for name, value in (("--length", 512), ("--size", 16), ("--steps", 30)):
        of_training.add_argument(name, type=int, default=value)
    of_serving = parts.add_parser("serving")
    of_serving.add_argument("bundle", type=Path)
    of_serving.add_argument("corpus", type=Path)
    of_serving.add_argument("--mails", type=int, default=2_000)
    options = parser.parse_args()
    if options.part == "training":
        found = training(options.model, options.length, options.size, options.steps)
    else:
        found = serving(options.bundle, options.corpus, options.mails)
    sys.stdout.write(json.dumps(about(f"gpu_{options.part}") | found) + "\n")


if __name__ == "__main__":
    main()
