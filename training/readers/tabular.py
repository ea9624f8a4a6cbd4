"""Tables of mail: JSONL, CSV, TSV and Parquet files, opened on the driver and read in tasks."""

import csv as stdlib_csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet

from training.mail import MAX_MAIL_BYTES
from training.readers.columns import arrow_rows, check_columns, mail_row
from training.readers.files import LINE, TOO_LARGE, open_whole, ranges, records
from training.readers.piece import (
    READ_BYTES,
    READ_MAILS,
    Piece,
    Row,
    SourceError,
    printable,
    reason,
)
from training.readers.place import base_name, place_of

SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_HEAD: Final = 1024 * 1024
_MOST_HEAD: Final = 64 * 1024 * 1024


def open_table(whole: Piece) -> tuple[list[Piece], int | None]:
    """The pieces of a file, and how many mails it has where it says so; reads only its schema.

    Raises:
        SourceError: it is empty or broken, or lacks a column that mail needs.
    """
    if whole.size == 0:
        raise SourceError(f"data.source: {whole.place} has no mails: it is empty")
    if whole.place.partition("?")[0].endswith(".parquet"):
        return _open_parquet(whole)
    if base_name(whole.place).endswith((".csv", ".tsv")):
        return _open_csv(whole), None
    return _open_jsonl(whole), None


def _open_jsonl(whole: Piece) -> list[Piece]:
    """The columns are those of all lines in the first MiB, as a line need not have all."""
    columns: dict[str, None] = {}
    fault = ""
    lines = [line for line in _head(whole, b"\n").split(b"\n")[:1_000] if line.strip()]
    for line in lines:
        try:
            columns |= dict.fromkeys(json_object(line))
        except ValueError as error:
            fault = fault or str(error)
    if not lines:
        raise SourceError(f"data.source: {whole.place} has no mails")
    if not columns and fault:
        raise SourceError(f"data.source: {whole.place}: the first lines are {fault}")
    check_columns(whole.place, list(columns), labelled=whole.allowed is not None)
    return ranges(replace(whole, reader="jsonl"))


def _head(whole: Piece, line_end: bytes) -> bytes:
    """The whole lines at the beginning: a MiB of them, or the first where it is longer."""
    with place_of(whole.place).open() as file:
        head = file.read(_HEAD)
        while line_end not in head and len(head) < min(whole.size, _MOST_HEAD):
            head += file.read(_HEAD)
    return head if len(head) >= whole.size else head[: head.rfind(line_end) + 1] or head


def _open_csv(whole: Piece) -> list[Piece]:
    delimiter = "\t" if base_name(whole.place).endswith(".tsv") else ","
    head = _head(whole, b"\n")
    try:
        lines = _lines(_text_of(io.BytesIO(head)), delimiter)
        header = next(lines, [])
        has_mails = next(lines, None) is not None or len(head) < whole.size
    except stdlib_csv.Error as error:
        raise SourceError(f"data.source: {whole.place} is no CSV: {error}") from error
    if any("\0" in name or printable(name) != name for name in header):
        raise SourceError(f"data.source: {whole.place} is not UTF-8; save it as UTF-8")
    check_columns(whole.place, header, labelled=whole.allowed is not None)
    if not has_mails:
        raise SourceError(f"data.source: {whole.place} has no mails")
    return [replace(whole, reader="csv", part=delimiter, end=whole.size)]


def _text_of(file: BinaryIO) -> io.TextIOWrapper:
    """Bytes that are not UTF-8 are kept as surrogates."""
    return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def _lines(text: io.TextIOWrapper, delimiter: str) -> Iterator[list[str]]:
    """The rows of a CSV file, without empty ones.

    The standard library's parser: Arrow's holds 32 blocks, each larger than the longest mail, and
    cannot go on after a row that it refuses.
    """
    stdlib_csv.field_size_limit(MAX_MAIL_BYTES)
    lines = iter(lambda: text.readline(MAX_MAIL_BYTES), "")
    return filter(None, stdlib_csv.reader(lines, delimiter=delimiter))


def _open_parquet(whole: Piece) -> tuple[list[Piece], int]:
    """Row groups together up to READ_MAILS or READ_BYTES; a larger one is read in a stream."""
    try:
        with place_of(whole.place).open() as file:
            facts = pyarrow.parquet.read_metadata(file)
            columns = facts.schema.to_arrow_schema().names
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"data.source: {whole.place} is no Parquet file that can be read: {reason(error)}"
        ) from error
    labelled = whole.allowed is not None
    paths = tuple(check_columns(whole.place, columns, labelled=labelled).values())
    pieces: list[Piece] = []
    start = mails = size = before = 0
    for number in range(facts.num_row_groups):
        group = facts.row_group(number)
        full = mails + group.num_rows > READ_MAILS or size + group.total_byte_size > READ_BYTES
        if number > start and full:
            pieces.append(replace(whole, start=start, end=number, first=before))
            start, before, mails, size = number, before + mails, 0, 0
        mails += group.num_rows
        size += group.total_byte_size
    if mails:
        pieces.append(replace(whole, start=start, end=facts.num_row_groups, first=before))
    return [replace(piece, reader="parquet", paths=paths) for piece in pieces], facts.num_rows


def jsonl(piece: Piece) -> Iterator[Row]:
    """An object a line; a line that is none is a row with an error."""
    name = piece.prefix
    for offset, line in records(piece, LINE):
        id_ = f"{name}:{offset}"
        if line is None:
            yield {"id": id_, "group": name, "error": TOO_LARGE}
        elif line.strip(b"\xef\xbb\xbf \t\r\n"):
            try:
                values = json_object(line)
            except ValueError as error:
                yield {"id": id_, "group": name, "error": str(error)}
                continue
            yield mail_row(values, id_, piece)


def json_object(line: bytes) -> dict[str, Any]:
    """The values of a JSONL line, their names in lower case; raises ValueError with a reason."""
    try:
        values = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte 0x{line[error.start]:02x} in the line") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {reason(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"no JSON object but {type(values).__name__}; one object a line is needed")
    return {name.strip().lower(): value for name, value in values.items()}


def csv(piece: Piece) -> Iterator[Row]:
    """A mail a row of a CSV or TSV file, whose values may have line ends in quotes."""
    name = piece.prefix
    with _text_of(open_whole(piece)) as text:
        lines = _lines(text, piece.part)
        columns = [column.strip().lower() for column in next(lines)]
        for number in itertools.count():
            row: Row = {"id": f"{name}:{number}", "group": name}
            try:
                values = next(lines, None)
            except stdlib_csv.Error as error:
                too_large = "field larger" in str(error)  # an open quote, most likely
                yield row | {"error": TOO_LARGE if too_large else f"no CSV: {error}"}
                continue
            if values is None:
                return
            if len(values) != len(columns):
                said = f"{len(values)} values, but {len(columns)} columns are named"
                yield row | {"error": said}
                continue
            fields = zip(columns, map(_as_read, values), strict=True)
            yield mail_row(dict(fields), row["id"], piece)


def _as_read(value: str) -> str | bytes:
    return value if value.isascii() else value.encode("utf-8", "surrogateescape")


def parquet(piece: Piece) -> Iterator[Row]:
    """The mails of some row groups."""
    name = piece.prefix

    def batches() -> Iterator[pa.RecordBatch]:
        with (
            open_whole(piece) as file,
            pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened,
        ):
            yield from opened.iter_batches(
                batch_size=READ_MAILS,
                row_groups=list(range(piece.start, piece.end)),
                columns=list(piece.paths),
                use_threads=False,
            )

    yield from arrow_rows(batches(), name, piece.first, piece)
