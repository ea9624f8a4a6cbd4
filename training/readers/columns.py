"""Columns: what a row of any table must have and may have, and the mail that it makes.

`label`, and `raw` (a message), `raw_base64` (one whose bytes no text holds) or any of `subject`,
`from`, `body` (or `text`, or `email`); where a mail may have several labels, `label` is a list, or
a text like `work|urgent`, empty for none; `id`, `group`, `date` and `split` where they are known.
Case does not matter, others are ignored.
Where labels are not wanted, `label` may be missing or hold anything, and `split` means nothing.
"""

import base64
import binascii
import datetime as dt
import email.utils
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from training.labels import SEPARATOR, Labels
from training.mail import Mail, render
from training.readers.piece import READ_MAILS, Piece, Row, SourceError, printable, reason

BODIES: Final = ("body", "text", "email")
RAWS: Final = ("raw", "raw_base64")
FIELDS: Final = ("subject", "from", *BODIES)
COLUMNS: Final = ("id", "label", "group", "split", "date", *RAWS, *FIELDS)
SPLITS: Final = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip


def check_columns(place: str, columns: Sequence[str], *, labelled: bool) -> dict[str, str]:
    """The columns of COLUMNS that there are: our name -> theirs.

    Raises:
        SourceError: one is there twice, or those that a mail needs are not.
    """
    found: dict[str, str] = {}
    for column in columns:
        name = column.strip().lower()
        if name in found:
            raise SourceError(f"data.source: {place} has the column {name} twice")
        if name in COLUMNS:
            found[name] = column
    unlabelled = labelled and "label" not in found
    if unlabelled or not any(name in found for name in (*RAWS, *FIELDS)):
        there = (" ".join(printable(column).split()) for column in columns)  # it may have lines
        raise SourceError(
            f"data.source: {place} needs the column {'label, and ' if labelled else ''}raw or some "
            f"of subject, from, body, text; it has {', '.join(there)}"
        )
    return found


def mail_row(values: dict[str, Any], default_id: str, piece: Piece) -> Row:
    """The row of one mail; where a value cannot be used, with an error that says which."""
    row: Row = {"id": default_id, "split": piece.split}
    try:
        row["id"] = _text(values, "id") or default_id
        given = _texts(values.get("label"))
        row["label"] = SEPARATOR.join(given)
        row["group"] = _text(values, "group") or row["label"]
        if piece.allowed is None:
            row["label"] = row["label"] or None
        else:
            try:
                row["label"] = Labels(piece.allowed, piece.multi).spelling(given)
            except ValueError as error:
                return row | {"error": str(error)}
        row["date"] = epoch_seconds(values.get("date"))
        if piece.allowed is not None and (split := _text(values, "split")):
            if split.strip().lower() not in SPLITS:
                return row | {"error": f"split {split[:80]!r} is not train, validation or test"}
            row["split"] = SPLITS[split.strip().lower()]
        if raw := _raw(values):
            return row | {"raw": raw}
        if not any(name in values for name in FIELDS):
            return row | {"error": f"{'raw_base64' if 'raw_base64' in values else 'raw'} is empty"}
        body = next((said for name in BODIES if (said := _text(values, name))), "")
        mail = Mail(subject=_text(values, "subject"), sender=_text(values, "from"), body=body)
        text = render(mail)
    except UnicodeDecodeError as error:
        at = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        return row | {"error": f"not UTF-8: {at} of {error.reason}"}
    except binascii.Error:
        return row | {"error": "raw_base64 is not base64"}
    if not (mail.subject.strip() or mail.sender.strip() or mail.body.strip()):
        return row | {"error": "all of its text columns are empty"}
    return row | {"text": text.encode("utf-8", "replace").decode()}


def _raw(values: dict[str, Any]) -> bytes:
    """The message; empty where there is none. Raises binascii.Error, UnicodeDecodeError."""
    if raw := values.get("raw"):
        return raw if isinstance(raw, bytes) else _bytes(str(raw))
    return base64.b64decode(_text(values, "raw_base64").encode("ascii", "replace"), validate=True)


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            error.reason = name
            raise
    return str(value) if name in FIELDS else printable(str(value))


def _named(value: Any, names: list[str]) -> Any:
    """A class number, or a list of them, by name."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _texts(value: object) -> list[str]:
    """Of one label, or of a list of them."""
    values = value if isinstance(value, list) else [value]
    return [_text({"label": each}, "label") for each in values]


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def epoch_seconds(value: object) -> int | None:
    """Seconds since 1970 of a number (of seconds, or of milliseconds where that fits better), a
    date, an ISO 8601 or RFC 5322 text, UTC where it names no zone; None if it is none of these."""
    try:
        if isinstance(value, str | bytes):
            value = _moment(value if isinstance(value, str) else value.decode())
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime(value.year, value.month, value.day)
        if isinstance(value, dt.datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp())
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = int(value / 1000 if abs(value) > 1e11 else value)
            return seconds if abs(seconds) < 1 << 62 else None
    except (ValueError, TypeError, OverflowError, IndexError):
        pass
    return None


def _moment(text: str) -> float | dt.datetime:
    try:
        return float(text)
    except ValueError:
        try:
            return dt.datetime.fromisoformat(text.strip())
        except ValueError:
            return email.utils.parsedate_to_datetime(text)


def arrow_rows(
    batches: Iterable[pa.RecordBatch | pa.Table],
    name: str,
    number: int,
    piece: Piece,
    classes: dict[str, list[str]] | None = None,
) -> Iterator[Row]:
    """The mails of some batches, numbered from `number`; what cannot be read on is one error."""
    try:
        for batch in batches:
            columns = [str(column).strip().lower() for column in batch.schema.names]
            for start in range(0, batch.num_rows, READ_MAILS):
                part = batch.slice(start, READ_MAILS)
                for values in zip(*(column.to_pylist() for column in part.columns), strict=True):
                    row = dict(zip(columns, values, strict=True))
                    for column, names in (classes or {}).items():
                        row[column] = _named(row.get(column), names)
                    yield mail_row(row, f"{name}:{number}", piece)
                    number += 1
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        said = f"cannot be read from row {number} on: {reason(error)}"
        yield {"id": f"{name}:{number}", "group": name, "error": said}
