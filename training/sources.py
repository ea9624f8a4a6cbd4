"""Sources: where mail comes from. Every source gives the same rows, in parts.

A row is id, label, group, and one of path (a file to read), raw (a message) or text (fields
already put together as mail text).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from training import corpus, synthetic
from training.mail import Mail, render

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("path", pa.string()),
        ("raw", pa.binary()),
        ("text", pa.string()),
    ]
)
PART = 1_024
"""Mails of a part: one task of the job that makes the tokens."""

Row = dict[str, Any]


class SourceError(ValueError):
    """A source cannot be read; the message says what is wrong, where, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Source:
    """Mail that is known but not yet read."""

    name: str
    fingerprint: str
    """A digest that changes whenever a mail, a label or their order does."""
    parts: tuple[pa.Table, ...]

    @property
    def mails(self) -> int:
        """How many mails it has."""
        return sum(part.num_rows for part in self.parts)


def open_source(name: str, labels: tuple[str, ...], corpora: Path) -> Source:
    """The mails of a source, as config key `data.source` spells it.

    Raises:
        SourceError: there is no such source, it is empty, or its labels are not `labels`.
    """
    kind, _, rest = name.partition(":")
    place = Path(name).expanduser()
    if name == "spamassassin":
        rows = list(_spamassassin(corpora / "spamassassin"))
    elif kind == "synthetic" and rest.isdecimal():
        rows = [
            {"id": id_, "label": label, "group": label, "raw": raw}
            for id_, label, raw in synthetic.mails(int(rest))
        ]
    elif place.is_dir():
        rows = list(_folder(place, labels))
    elif place.is_file():
        rows = list(_table(place))
    else:
        raise SourceError(
            f"data.source: {name} is neither spamassassin, synthetic:N, nor a folder or file here"
        )
    if not rows:
        raise SourceError(f"data.source: {name} has no mails")
    unknown = sorted({str(row["label"]) for row in rows} - set(labels))
    if unknown:
        raise SourceError(
            f"data.source: {name} has labels {', '.join(unknown[:5])}; "
            f"data.labels allows {', '.join(labels)}"
        )
    parts = tuple(
        pa.Table.from_pylist(rows[start : start + PART], SCHEMA)
        for start in range(0, len(rows), PART)
    )
    return Source(name, _fingerprint(rows), parts)


def _fingerprint(rows: Iterable[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        facts: list[Any] = [row["id"], row["label"]]
        if path := row.get("path"):
            status = Path(path).stat()
            facts += [status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(facts).encode())
        digest.update(row.get("raw") or b"")
        digest.update((row.get("text") or "").encode("utf-8", "replace"))
    return digest.hexdigest()


def _spamassassin(place: Path) -> Iterator[Row]:
    if not (place / corpus.MANIFEST).is_file():
        raise SourceError(
            "data.source: spamassassin is not here yet; run `mailray data fetch spamassassin`"
        )
    for group in corpus.GROUPS:
        label = "spam" if group.startswith("spam") else "ham"
        for file in sorted((place / group).iterdir()):
            yield {"id": f"{group}/{file.name}", "label": label, "group": group, "path": str(file)}


def _folder(place: Path, labels: tuple[str, ...]) -> Iterator[Row]:
    """One sub-folder for each label, mails at any depth below it; hidden files are none."""
    found = [label for label in labels if (place / label).is_dir()]
    if not found:
        raise SourceError(
            f"data.source: {place} needs a sub-folder for each label: {', '.join(labels)}"
        )
    for label in found:
        for file in sorted((place / label).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                id_ = file.relative_to(place).as_posix()
                group = Path(id_).parent.as_posix()
                yield {"id": id_, "label": label, "group": group, "path": str(file.resolve())}


def _table(file: Path) -> Iterator[Row]:
    """A CSV or JSONL file: columns label; raw or subject, from, body; id, group if known."""
    try:
        if file.suffix == ".csv":
            options = pyarrow.csv.ParseOptions(newlines_in_values=True)
            table = pyarrow.csv.read_csv(file, parse_options=options)
        elif file.suffix in (".jsonl", ".ndjson"):
            table = pyarrow.json.read_json(file)
        else:
            raise SourceError(f"data.source: {file}: a .csv, .jsonl or .ndjson file is needed")
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"data.source: {file}: {str(error).splitlines()[0]}") from error
    columns = table.column_names
    fields = [name for name in ("subject", "from", "body") if name in columns]
    if "label" not in columns or not (fields or "raw" in columns):
        raise SourceError(
            f"data.source: {file} needs the column label, and raw or some of subject, from, body; "
            f"it has {', '.join(columns)}"
        )
    for number, row in enumerate(table.to_pylist()):
        text = {name: "" if row[name] is None else str(row[name]) for name in fields}
        yield {
            "id": str(row["id"]) if row.get("id") is not None else f"{file.name}:{number}",
            "label": "" if row["label"] is None else str(row["label"]),
            "group": str(row.get("group") or row["label"]),
        } | (
            {"raw": str(row["raw"]).encode("utf-8", "surrogateescape")}
            if "raw" in columns
            else {
                "text": render(
                    Mail(text.get("subject", ""), text.get("from", ""), text.get("body", ""))
                )
            }
        )
