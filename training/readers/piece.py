"""What sources and readers share: the rows, the piece that one task reads, and the fault."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

COLUMNS: Final = ("id", "label", "group", "split", "date", "raw", "text", "error")
"""Of a row: strings, but for the date (epoch seconds) and the raw mail (bytes)."""
READ_MAILS: Final = 1_024
"""Mails of a batch at most, and of a piece where they can be counted beforehand."""
READ_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a batch, and of a piece of single files, above which it is cut."""
RANGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a piece of an mbox or JSONL file: about READ_MAILS mails of a usual length."""

ReaderName = Literal[
    "files", "maildir", "index", "mbox", "jsonl", "csv", "parquet", "hf", "synthetic"
]
Row = dict[str, Any]
"""A mail, or why it is none: COLUMNS, None where nothing is known."""

_ABSENT: Final[Row] = dict.fromkeys(COLUMNS)
_LINE_END: Final = re.compile(r"\s*[\r\n]\s*")


class SourceError(ValueError):
    """A source cannot be read; the message says what is wrong, where, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one task reads."""

    reader: ReaderName
    place: str
    """The folder or file: an absolute local path, a URI, or the name of a hub dataset."""
    allowed: tuple[str, ...] | None
    """The labels that a row may have; None where it needs none, and may have any."""
    multi: bool = False
    """A row may have several of them, or none."""
    prefix: str = ""
    """What the ids begin with."""
    label: str | None = None
    """The label of every mail, where the place says it rather than the rows."""
    paths: tuple[str, ...] = ()
    """Files below `place`, a mail each, and ..."""
    path_labels: tuple[str | None, ...] = ()
    """... the label of each."""
    split: str | None = None
    """The split of every mail, where the place says it rather than the rows."""
    part: str = ""
    """The split of a Hugging Face dataset, by its own name."""
    start: int = 0
    end: int = 0
    """The bytes, row groups or rows `start` to `end` of one file."""
    first: int = 0
    """The number of the first row of those row groups."""
    size: int = 0
    """Bytes of that file when it was opened."""


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, each with all COLUMNS, at most READ_MAILS and about READ_BYTES at once."""
    held: list[Row] = []
    size = 0
    for row in rows:
        weight = len(row.get("raw") or b"") + len(row.get("text") or "")
        if held and (len(held) == READ_MAILS or size + weight > READ_BYTES):
            yield held
            held, size = [], 0
        held.append(_ABSENT | row)
        size += weight
    if held:
        yield held


def printable(text: str) -> str:
    r"""The text as valid UTF-8: bytes of a file name that are none appear as \xff."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair, as JSON can spell it
        return text.encode("utf-8", "backslashreplace").decode()


def reason(error: BaseException) -> str:
    """Why, in one line."""
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return _LINE_END.split(str(said))[0]


def some(names: Iterable[str]) -> str:
    """Up to five names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
