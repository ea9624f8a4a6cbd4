"""Sources, opened as a run opens them; their rows; and files to make them of."""

from pathlib import Path
from typing import Any

from training.labels import Labels
from training.readers import read
from training.sources import COLUMNS, READ_MAILS, Source, open_source

LABELS = ("ham", "spam")
MAIL = b"Subject: x\r\n\r\nhello\r\n"


def opened(name: Path | str, labels: tuple[str, ...] = LABELS, multi: bool = False) -> Source:
    return open_source(str(name), Labels(labels, multi), Path("nowhere"))


def rows_of(source: Source) -> list[dict[str, Any]]:
    batches = [rows for piece in source.pieces for rows in read(piece)]
    assert all(len(rows) <= READ_MAILS for rows in batches)
    assert all(tuple(row) == COLUMNS for rows in batches for row in rows)
    return [row for rows in batches for row in rows]


def written(file: Path, content: bytes = MAIL) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
