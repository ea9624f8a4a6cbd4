"""Mails a second through parse + mail text on one core, beside a plain standard-library path.

    python tests/bench/mail_speed.py CORPUS_DIR

Both read the same mails from memory, in one process and one thread, in turns; the numbers are
medians of the repeats. The last line printed is one JSON object.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training.mail import MAIL_TEXT_VERSION, MAX_BODY_CHARS, MailError, mail_text  # noqa: E402

REPEATS = 7
PLAIN_REPEATS = 3


class Words(HTMLParser):
    """The text of an HTML document without its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.silent = False

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words.append(data)


def plain_text(raw: bytes) -> str:
    """Subject, sender and body as one would write it from the standard library's documentation."""
    message = message_from_bytes(raw, policy=default)
    part = message.get_body(("plain", "html"))
    body = str(part.get_content()) if part is not None else ""
    if part is not None and part.get_content_subtype() == "html":
        words = Words()
        words.feed(body)
        body = " ".join(words.words)
    lines = (" ".join(line.split()) for line in body.splitlines())
    body = "\n".join(line for line in lines if line)[:MAX_BODY_CHARS]
    return f"subject: {message['subject']}\nfrom: {message['from']}\n\n{body}"


def seconds(view: Callable[[bytes], str], mails: Sequence[bytes]) -> tuple[float, int]:
    """CPU seconds for all mails, and how many gave no text."""
    refused = 0
    started = time.process_time()
    for raw in mails:
        try:
            view(raw)
        except MailError:
            refused += 1
        except Exception:  # what the plain path makes of broken mail is part of the finding
            refused += 1
    return time.process_time() - started, refused


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main(corpus: Path) -> None:
    files = sorted(file for file in corpus.rglob("*") if file.is_file() and file.suffix != ".json")
    mails = [file.read_bytes() for file in files]
    if not mails:
        raise SystemExit(f"no mails below {corpus}")
    ours: list[float] = []
    plain: list[float] = []
    for repeat in range(REPEATS):
        took, refused = seconds(mail_text, mails)
        ours.append(took)
        if repeat < PLAIN_REPEATS:
            took, plain_refused = seconds(plain_text, mails)
            plain.append(took)
    fast, slow = statistics.median(ours), statistics.median(plain)
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    result = {
        "benchmark": "mail_speed",
        "mails": len(mails),
        "bytes": sum(map(len, mails)),
        "mails_per_second_per_core": round(len(mails) / fast),
        "fastest_repeat": round(len(mails) / min(ours)),
        "slowest_repeat": round(len(mails) / max(ours)),
        "standard_library_mails_per_second": round(len(mails) / slow),
        "ratio": round(slow / fast, 1),
        "refused": refused,
        "standard_library_failed": plain_refused,
        "commit": commit.strip(),
        "hardware": f"{cpu()}, {os.cpu_count()} cores, 1 used",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {
            "mail_text_version": MAIL_TEXT_VERSION,
            "repeats": REPEATS,
            "standard_library_repeats": PLAIN_REPEATS,
            "clock": "process_time",
            "python": platform.python_version(),
        },
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
