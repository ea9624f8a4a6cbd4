"""Do the words that an explanation names decide? They are deleted, and so are others by chance.

    python -m tests.bench.explained_words BUNDLE CORPUS [--mails 200] [--seconds 60] [--minutes 20]

Of each mail, half of them spam, the 5 and 10 words that weigh most for the label that it gets are
cut out of its text, and that label's log-odds measured anew; against it as many words drawn evenly,
three times. Mails of fewer than 20 words are left out. CORPUS is a source's folder; a mail is spam
if its path says so.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serving.attribution import direction
from serving.explanation import Explainer, Span
from training.bundle import load
from training.mail import MailError, mail_text, text_options
from training.scorer import Scorer

COUNTS = (5, 10)
DRAWS = 3
FEWEST = 20


def without(text: str, spans: Sequence[Span]) -> str:
    """The text without these words."""
    for span in sorted(spans, key=lambda span: -span.start):
        text = text[: span.start] + text[span.end :]
    return text


def drawn(corpus: Path, mails: int, seed: int) -> list[Path]:
    """As many files, spam and ham by turns."""
    files = sorted(file for file in corpus.rglob("*") if file.is_file())
    random.Random(seed).shuffle(files)
    spam = [file for file in files if "spam" in file.parent.name]
    ham = [file for file in files if "ham" in file.parent.name]
    return [file for pair in zip(spam, ham, strict=False) for file in pair][: 2 * mails]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--mails", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each explanation")
    parser.add_argument("--minutes", type=float, default=20.0, help="of it all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = load(options.bundle)
    explainer, scorer = Explainer(bundle), Scorer(bundle, "fp32")
    chance = random.Random(0)
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * options.minutes
    for file in drawn(options.corpus, options.mails, 7):
        if len(rows) == options.mails or time.monotonic() > end:
            break
        try:
            text = mail_text(file.read_bytes(), text_options(bundle.extras))
        except MailError:
            continue
        [scores] = scorer.score(scorer.tokens([text]))
        label = int(scores.argmax())
        began, cpu = time.monotonic(), time.thread_time()
        found = explainer.explain(text, label=bundle.labels[label], seconds=options.seconds)
        spent, cpu = time.monotonic() - began, time.thread_time() - cpu
        own = [span for span in found.spans if not span.named]
        if len(own) < FEWEST:
            continue
        towards = direction(bundle.head, label, bundle.temperature)
        ranked = sorted(own, key=lambda span: -span.weight)
        texts = [without(text, ranked[:count]) for count in COUNTS]
        texts += [
            without(text, chance.sample(own, count)) for count in COUNTS for _ in range(DRAWS)
        ]
        with torch.inference_mode():
            logits = scorer.model(*scorer.reader(scorer.tokens(texts)))
        falls = (found.score - logits @ towards).tolist()
        row: dict[str, Any] = {"label": bundle.labels[label], "seconds": spent, "cpu": cpu}
        row |= {"gap": abs(found.gap), "moved": abs(found.score - found.baseline)}
        row |= {"steps": found.steps, "complete": found.complete}
        for number, count in enumerate(COUNTS):
            at = len(COUNTS) + number * DRAWS
            row |= {f"top_{count}": falls[number]}
            row |= {f"random_{count}": statistics.fmean(falls[at : at + DRAWS])}
        rows.append(row)
        print(f"{len(rows):4} {json.dumps(row)}", flush=True)  # noqa: T201
    print(json.dumps(told(rows) | {"load": os.getloadavg()[0]}))  # noqa: T201


def told(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All mails together."""

    def middle(name: str) -> float:
        return round(float(statistics.median(row[name] for row in rows)), 3)

    line: dict[str, Any] = {"mails": len(rows)}
    line |= {f"{name}_median": middle(name) for name in ("seconds", "cpu", "steps", "gap")}
    line["seconds_p90"] = round(sorted(row["seconds"] for row in rows)[len(rows) * 9 // 10], 3)
    line["complete"] = sum(row["complete"] for row in rows)
    line["largest_gap_share"] = round(max(row["gap"] / max(row["moved"], 1) for row in rows), 4)
    for count in COUNTS:
        top, other = f"top_{count}", f"random_{count}"
        line |= {f"{name}_mean": round(statistics.fmean(r[name] for r in rows), 3)
                 for name in (top, other)}  # fmt: skip
        line |= {f"{top}_median": middle(top), f"{other}_median": middle(other)}
        line[f"{top}_more"] = sum(row[top] > row[other] for row in rows)
    return line


if __name__ == "__main__":
    main()
