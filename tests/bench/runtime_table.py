"""PyTorch in bf16 and fp32, ONNX Runtime in fp32 and int8, OpenVINO in int8: size, speed, changes.

    PYTHONPATH=. python -m tests.bench.runtime_table HOME BUNDLE [--mails 605] [--rounds 5]

HOME is a MAILRAY_HOME whose corpora the bundle was trained on; what BUNDLE has no export for is
exported into a scratch directory first. The mails are those of its test side. All runtimes take
turns in one process with as many threads as there are CPUs; the shortest time of each counts. `one`
is the mean over mails of every length scored alone, tokenization left out; `batch` are all the
mails in one call. Prints a table, and one JSON line last.
"""

import argparse
import json
import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
import torch

from training.bundle import KINDS, Bundle, Kind, load
from training.evaluation import Scored, data_of
from training.export import Sample, export, sample
from training.home import Home
from training.mails import survey
from training.provenance import provenance
from training.scorer import Precision, Runtime, Scorer
from training.stages import Quiet

RUNTIMES: Final[tuple[tuple[Runtime, Precision], ...]] = (
    ("torch", "bf16"), ("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8"), ("openvino", "int8"),
)  # fmt: skip
_ALONE: Final = 40
"""Mails that are scored one by one."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--mails", type=int, default=10**9)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    bundle = load(asked.bundle)
    some, tokens, truth, ids, facts = _mails(bundle, Home(asked.home), asked.mails)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in {*KINDS} - {made.kind for made in bundle.exports}:
            bundle = export(bundle, Path(scratch, "bundle"), kind, some, Quiet())
        load_before = os.getloadavg()[0]
        rows = _measured(bundle, tokens, truth, ids, asked.rounds, asked.threads)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))  # noqa: T201
    print(json.dumps({  # noqa: T201
        "bench": "runtime_table", "rows": rows, "mails": len(ids), "rounds": asked.rounds,
        "threads": asked.threads, "load": [load_before, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"), "commit": facts.get("commit"), "cpu": facts.get("cpu"),
    }))  # fmt: skip


def _mails(
    bundle: Bundle, home: Home, most: int
) -> tuple[Sample, list[list[int]], np.ndarray, list[str], dict[str, str]]:
    """What exports are made with, and the test mails' tokens, truth and ids."""
    ray.init(num_cpus=2, logging_level=logging.ERROR, log_to_driver=False)
    try:
        mails, _ = survey(data_of(bundle), bundle.tokenizer(), home, Quiet())
        for_export = sample(bundle, home, Quiet(), None, "test", fit=True)
    finally:
        ray.shutdown()  # its processes would be measured too
    rows = mails.on("test")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    table = mails.cache.table().select(["id", "tokens"]).take(rows)
    truth = bundle.label_set.truth(mails.labels[rows])
    return (
        for_export,
        table["tokens"].to_pylist(),
        truth,
        table["id"].to_pylist(),
        provenance(mails),
    )


def _measured(
    bundle: Bundle, tokens: list[list[int]], truth: np.ndarray, ids: list[str], rounds: int,
    threads: int,
) -> list[dict[str, Any]]:  # fmt: skip
    scorers = [Scorer(bundle, precision, runtime, threads) for runtime, precision in RUNTIMES]
    by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    alone = [tokens[row] for row in by_length[:: max(1, len(tokens) // _ALONE)]]
    best_one, best_all = ([math.inf] * len(scorers) for _ in range(2))
    found: list[np.ndarray] = [np.empty(0)] * len(scorers)
    for _ in range(rounds):
        for at, scorer in enumerate(scorers):
            scorer.score(alone[:2])
            began = time.perf_counter()
            for mail in alone:
                scorer.score([mail])
            best_one[at] = min(best_one[at], (time.perf_counter() - began) / len(alone))
            began = time.perf_counter()
            found[at] = scorer.score(tokens)
            best_all[at] = min(best_all[at], time.perf_counter() - began)
    exact = found[RUNTIMES.index(("torch", "fp32"))]
    labels = bundle.label_set
    rows = []
    for at, (runtime, precision) in enumerate(RUNTIMES):
        scored = Scored(labels, ids, truth, found[at])
        report = scored.report(bundle.points)
        apart = np.abs(found[at].astype(np.float64) - exact)
        name = "model.safetensors"
        if runtime != "torch":
            name = Kind(runtime, precision).file  # type: ignore[arg-type]
        rows.append({
            "runtime": f"{runtime} {precision}",
            "mb": round((bundle.path / name).stat().st_size / 1e6, 1),
            "one_ms": round(1000 * best_one[at], 2),
            "batch_mails_s": round(len(tokens) / best_all[at], 1),
            "accuracy": round(report["accuracy"], 4),
            "one_minus_auc_percent": round(100 * (1 - report["roc_auc"]), 4),
            "largest": float(apart.max()), "mean": float(apart.mean()),
            "changed": int((labels.guess(found[at]) != labels.guess(exact)).sum()),
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
