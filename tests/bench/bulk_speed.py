"""Bulk classification against the bare scorer on the same mails: what Ray Data and files cost.

    python tests/bench/bulk_speed.py BUNDLE CORPUS [--runtime torch] [--workers 2] [--repeat 1]

CORPUS is the folder of the fetched SpamAssassin corpus. The bare scorer gets ready mail texts, 256
at a time, in as many processes of one thread as the command has models: with tokenizing, and
without. Parsing is timed alone, on one core. The command's rate is from its first part to its last;
`seconds` has the loading of Ray and models as well. With --repeat it gets the corpus so many times
over, and its memory is told for the first fifth of the way and for the rest: that must not grow.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.bundle import load
from training.choice import GRAPHS
from training.mail import mail_text, text_options
from training.scorer import Runtime, Scorer

PART = 256


def texts_of(bundle: Path, corpus: Path) -> list[str]:
    """The mail texts of the corpus, in the source's order."""
    options = text_options(load(bundle).extras)
    return [
        mail_text(file.read_bytes(), options)
        for group in sorted(corpus.iterdir())
        if group.is_dir()
        for file in sorted(group.iterdir())
    ]


def bare(bundle: Path, runtime: Runtime, texts: list[str]) -> tuple[float, float, float]:
    """When one process began and ended to score its texts, and seconds of that to tokenize."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    scorer = Scorer(load(bundle), runtime=runtime)
    scorer.score(scorer.tokens(texts[:8]))
    began, tokenizing = time.time(), 0.0
    for at in range(0, len(texts), PART):
        start = time.time()
        tokens = scorer.tokens(texts[at : at + PART])
        tokenizing += time.time() - start
        scorer.score(tokens)
    return began, time.time(), tokenizing


def bare_rates(bundle: Path, runtime: Runtime, texts: list[str], workers: int) -> dict[str, float]:
    """Mails a second of as many bare scorers at once, parts dealt out by turns."""
    parts = [texts[at : at + PART] for at in range(0, len(texts), PART)]
    dealt = [[text for part in parts[n::workers] for text in part] for n in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        done = list(pool.map(partial(bare, bundle, runtime), dealt))
    busy = [ended - began for began, ended, _ in done]
    rates = [len(some) / seconds for some, seconds in zip(dealt, busy, strict=True)]
    forwards = [
        len(some) / (seconds - tokenizing)
        for some, seconds, (_, _, tokenizing) in zip(dealt, busy, done, strict=True)
    ]
    return {"bare_with_tokenizing": sum(rates), "bare_forward": sum(forwards)}


def private_bytes(pid: int) -> int:
    """Anonymous memory of one process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def memory(driver: int, home: Path) -> dict[str, int]:
    """Bytes of the driver, of the largest model and of the largest reader of a run in `home`."""
    sizes = {"driver": private_bytes(driver), "model": 0, "reader": 0}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"MAILRAY_HOME={home}".encode() not in (entry / "environ").read_bytes():
                continue
            name = (entry / "cmdline").read_text()
        except OSError:
            continue
        for kind, title in (("model", "Score"), ("reader", "read_parts")):
            if name.startswith("ray::") and title in name:
                sizes[kind] = max(sizes[kind], private_bytes(int(entry.name)))
    return sizes


def bulk(bundle: Path, runtime: Runtime, source: str, workers: int, total: int) -> dict[str, Any]:
    """One run of the command, and its memory at a tenth of the way and at its end."""
    with tempfile.TemporaryDirectory() as scratch:
        out, home = Path(scratch, "out"), Path(scratch, "home")
        process = subprocess.Popen(
            [
                sys.executable, "-m", "cluster.main", "classify", "--bulk", source,
                "--out", str(out), "--model", str(bundle), "--workers", str(workers), "--json",
                "--runtime", runtime,
            ],
            env=os.environ | {"MAILRAY_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        samples: list[tuple[float, dict[str, int]]] = []
        over = threading.Event()

        def sample() -> None:
            while not over.wait(2):
                done = len(list(out.glob("part-*"))) * PART / total if out.is_dir() else 0.0
                samples.append((done, memory(process.pid, home)))

        thread = threading.Thread(target=sample)
        thread.start()
        said, err = process.communicate()
        over.set()
        thread.join()
        if process.returncode:
            raise SystemExit(err)
    facts: dict[str, Any] = json.loads(said)
    early = [sizes for done, sizes in samples if 0 < done <= 0.2] or [{}]
    late = [sizes for done, sizes in samples if done > 0.2] or [{}]
    kept = ("mails", "errors", "unsure", "labels", "seconds", "mails_per_second")
    return {key: facts[key] for key in kept} | {
        "memory_mb_first_fifth": _peaks(early),
        "memory_mb_later": _peaks(late),
    }


def _peaks(samples: list[dict[str, int]]) -> dict[str, int]:
    return {kind: round(max(one[kind] for one in samples) / 1e6) for kind in samples[0]}


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--runtime", choices=["torch", *GRAPHS], default="torch")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    bundle, corpus = options.bundle.absolute(), options.corpus.absolute()
    began = time.perf_counter()
    texts = texts_of(bundle, corpus)
    parsing = time.perf_counter() - began
    rates = bare_rates(bundle, options.runtime, texts, options.workers)
    with tempfile.TemporaryDirectory() as scratch:
        # The same mails under other names: a source takes no folder twice.
        for number in range(options.repeat):
            for group in sorted(corpus.iterdir()):
                if group.is_dir():
                    folder = Path(scratch, f"{number:03d}", group.name)
                    folder.mkdir(parents=True)
                    for file in group.iterdir():
                        os.link(file, folder / file.name) if _same_disk(file, folder) else (
                            (folder / file.name).write_bytes(file.read_bytes())
                        )
        found = bulk(bundle, options.runtime, scratch, options.workers, len(texts) * options.repeat)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        "bench": "bulk_speed",
        "commit": commit.stdout.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
        "runtime": options.runtime,
        "workers": options.workers,
        "parse_and_text_one_core": round(len(texts) / parsing),
        **{name: round(rate, 1) for name, rate in rates.items()},
        **found,
        "of_bare_with_tokenizing": round(
            found["mails_per_second"] / rates["bare_with_tokenizing"], 3
        ),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _same_disk(file: Path, folder: Path) -> bool:
    return file.stat().st_dev == folder.stat().st_dev


if __name__ == "__main__":
    main()
