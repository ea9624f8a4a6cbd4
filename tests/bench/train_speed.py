"""Tokens a second of training: mailray, HF Trainer, the loop of the articles, a bare loop.

    python -m tests.bench.train_speed HOME [--mails 640] [--repeats 3] [--set model.freeze=0]
    python -m tests.bench.train_speed HOME --f1 [--seeds 3] [--epochs 1] [--hf-lr 2e-5]

HOME is a MAILRAY_HOME with the fetched SpamAssassin corpus; HF Trainer needs `accelerate`. All
train from the same weights on the same mails and tokens, the first of the plan's first epoch, each
in a process of its own, with all of its helpers on the same cores. They take turns; a rate is the
median of the repeats, a ratio that of the ratios within each. Padding is no token, and steps until
`--warmup` do not count. A step of mailray ends when its message comes, up to 0.3 s late.

With `--f1`, F1 and ROC AUC on the validation mails after equal epochs on all training mails. The
last line printed is one JSON object.
"""

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import numpy as np

from cluster.session import ray_session
from tests.bench.train_contestants import CONTESTANTS, Found, Task, plan_of
from training.config import resolve
from training.home import Home
from training.mails import Mails, load
from training.scorer import bf16_pays
from training.splits import LEFT_OUT, TRAIN, VALIDATION
from training.stages import Quiet
from training.weights import tokenizer

ROOT: Final = Path(__file__).resolve().parents[2]
SETTINGS: Final = ("data.max_length=512", "data.wide_length=0", "batching.size=16")
RATIOS: Final = {
    "mailray/hf": ("mailray", "hf_trainer"),
    "mailray/hf_no_attention_dropout": ("mailray", "hf_no_attention_dropout"),
    "mailray/classic": ("mailray", "classic"),
    "mailray/bare": ("mailray", "bare"),
    "two_workers/one_worker": ("mailray_two_workers", "mailray"),
}
PACKAGES: Final = ("torch", "transformers", "accelerate", "ray")
VALIDATED: Final = 16
"""Mails that mailray, which always validates, does so with after the steps that are timed."""


def contest(name: str, task: Task) -> Found:
    """What a contestant finds, in a process of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "task")
        file.write_bytes(pickle.dumps(task))
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.train_contestants", name, str(file)],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    figures = ", ".join(f"{key} {value:,.5g}" for key, value in found.items())
    sys.stderr.write(f"{name}: {figures} ({time.monotonic() - began:.0f} s)\n")
    return found


def limited(mails: Mails, order: np.ndarray, validated: int) -> Mails:
    """The same mails, all left out but those to train on and a few that validate."""
    rows = mails.on("validation")
    side = np.full_like(mails.side, LEFT_OUT)
    side[order] = TRAIN
    side[rows[:: max(1, len(rows) // validated)][:validated]] = VALIDATION  # they lie by label
    return replace(mails, side=side)


def speeds(task: Task, names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Each contestant's tokens a second, and how they compare."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, found in rates.items():
            found.append(contest(name, task)["tokens_per_second"])
    return {
        "tokens_per_second": {
            name: {"median": round(median(found)), "repeats": [round(rate) for rate in found]}
            for name, found in rates.items()
        },
        "ratios": {
            ratio: round(median(a / b for a, b in zip(rates[ours], rates[other], strict=True)), 3)
            for ratio, (ours, other) in RATIOS.items()
            if ours in rates and other in rates
        },
    }


def qualities(task: Task, seeds: int) -> dict[str, Any]:
    """F1 and ROC AUC on the validation mails of mailray and HF Trainer."""
    found: dict[str, list[Found]] = {"mailray": [], "hf_trainer": []}
    for seed in range(seeds):
        for name, results in found.items():
            results.append(contest(name, replace(task, seed=seed)))
    return {
        metric: {
            name: {
                "mean": round(mean(result[metric] for result in results), 4),
                "seeds": [round(result[metric], 4) for result in results],
            }
            for name, results in found.items()
        }
        for metric in ("f1", "roc_auc")
    }


def hardware() -> str:
    """The processor, and how many cores it has."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{os.cpu_count()} x {name}, {'bf16' if bf16_pays() else 'fp32'}"


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--mails", type=int, help="to train on; 640, with --f1 all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=5, help="steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--f1", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--hf-lr", type=float, default=2e-5)
    options = parser.parse_args()
    versions = {name: version(name) for name in PACKAGES}
    load_before = round(os.getloadavg()[0], 1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

    epochs = options.epochs if options.f1 else 1
    length = (f"optimizer.epochs={epochs}", f"optimizer.patience={epochs}")
    settings = (*SETTINGS, *length, *options.set)
    config = resolve(overrides=settings)
    with ray_session(address="local", cpus=options.threads):
        words = tokenizer(config.model.name)
        mails = load(config.data, words, Home(options.home.absolute()), Quiet())
    if not options.f1 or options.mails:
        order = np.concatenate(plan_of(config, mails).epoch(0))[: options.mails or 640]
        mails = limited(mails, order, len(order) if options.f1 else VALIDATED)
    rows = mails.on("train")
    if not options.f1 and len(plan_of(config, mails).epoch(0)) <= options.warmup:
        parser.error(f"--warmup {options.warmup} leaves no step of {len(rows)} mails")
    task = Task(settings, mails, options.threads, options.warmup, options.hf_lr, options.f1)
    found = (
        qualities(task, options.seeds)
        if options.f1
        else speeds(task, options.only, options.repeats)
    )

    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    result = {
        "bench": "train_f1" if options.f1 else "train_speed",
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware(),
        "load_before": load_before,
        "versions": versions,
        "threads": options.threads,
        "settings": settings,
        "mails": len(rows),
        "tokens": int(mails.lengths[rows].sum()),
    }
    if options.f1:
        result |= {"validation_mails": len(mails.on("validation")), "hf_lr": options.hf_lr}
    sys.stdout.write(json.dumps(result | found) + "\n")


if __name__ == "__main__":
    main()
