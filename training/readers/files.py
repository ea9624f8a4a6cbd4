"""Raw mail: a file each, or many in an mbox."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, Final

from training.mail import MAX_MAIL_BYTES
from training.readers.piece import RANGE_BYTES, Piece, Row, SourceError, printable, reason
from training.readers.place import place_of

LINE: Final = re.compile(rb"\n")
MBOX: Final = re.compile(rb"\n\r?\n(?=From )")
"""What ends a record; the next one begins at its end."""
_BEHIND: Final = 3
_REACH: Final = 8
"""Bytes that a boundary is long, without and with what it looks ahead to, at most."""
TOO_LARGE: Final = f"too large: the limit is {MAX_MAIL_BYTES:,} bytes"
_UP: Final = re.compile(r"^(?:\.\./)+")
_CHUNK: Final = 1024 * 1024
_QUOTED: Final = re.compile(rb"^>(>*From )", re.MULTILINE)


def files(piece: Piece) -> Iterator[Row]:
    """A mail for each file."""
    place = place_of(piece.place)
    for path, label in zip(piece.paths, piece.path_labels, strict=True):
        id_, group = _identity(piece, path, label)
        row: Row = {"id": id_, "label": label, "group": group}
        try:
            with place.open(path) as file:
                raw = file.read(MAX_MAIL_BYTES + 1)
        except (OSError, ValueError) as error:
            yield row | {"error": f"cannot be read: {reason(error)}"}
            continue
        yield row | ({"raw": raw} if len(raw) <= MAX_MAIL_BYTES else {"error": TOO_LARGE})


def _identity(piece: Piece, path: str, label: str | None) -> tuple[str, str]:
    """Id and group: path and folder, but a Maildir's flags and its move from new/ to cur/ are
    no other mail, and the folders beside an index file say nothing."""
    shown = printable(posixpath.join(piece.prefix, path))
    if piece.reader == "maildir":
        folder, name = posixpath.split(shown)
        group = posixpath.dirname(folder)
        return posixpath.join(group, name.partition(":2,")[0]), group
    if piece.reader == "index":
        return shown.removeprefix("/") if shown[0] == "/" else _UP.sub("", shown), label or ""
    return shown, posixpath.dirname(shown)


def mbox(piece: Piece) -> Iterator[Row]:
    """The mails whose 'From ' line begins in the piece's bytes; '>From ' loses a '>'."""
    name = piece.prefix
    for offset, record in records(piece, MBOX):
        row: Row = {"id": f"{name}:{offset}", "label": piece.label, "group": name}
        if record is None:
            yield row | {"error": TOO_LARGE}
            continue
        _, _, raw = record.lstrip(b"\r\n").partition(b"\n")
        if raw.endswith((b"\n\n", b"\n\r\n")):  # the empty line belongs to the format
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        if raw or record.startswith(b"From "):
            yield row | {"raw": _QUOTED.sub(rb"\1", raw) if b">From " in raw else raw}


def open_mbox(whole: Piece) -> list[Piece]:
    """The pieces of an mbox file; raises SourceError where it is empty or none."""
    with place_of(whole.place).open() as file:
        head = file.read(_CHUNK)
    if not head.strip() and whole.size <= _CHUNK:
        raise SourceError(f"data.source: {whole.place} has no mails")
    if not head.lstrip(b"\r\n").startswith(b"From "):
        raise SourceError(
            f"data.source: {whole.place} is no mbox file: it does not begin with a line 'From ...'"
        )
    return ranges(replace(whole, reader="mbox"))


def ranges(whole: Piece) -> list[Piece]:
    """A file in pieces of RANGE_BYTES."""
    return [
        replace(whole, start=start, end=min(start + RANGE_BYTES, whole.size))
        for start in range(0, whole.size, RANGE_BYTES)
    ]


def records(piece: Piece, boundary: re.Pattern[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Offset and bytes of each record that begins in the piece's bytes, its boundary included;
    None for one that is longer than a mail may be. As text splits of Hadoop: pieces that cover a
    file give every record exactly once, wherever they are cut."""
    with open_whole(piece) as file:
        base = max(0, piece.start - _BEHIND)
        file.seek(base)
        held = bytearray()
        begin = 0 if piece.start == 0 else None
        scan = 0
        too_long = False
        while chunk := file.read(_CHUNK):
            held += chunk
            while match := boundary.search(held, scan):
                scan = match.end()
                if begin is not None:
                    yield begin, None if too_long else bytes(held[begin - base : scan])
                if base + scan >= piece.end:
                    return
                begin = base + scan if base + scan >= piece.start else None
                too_long = False
            scan = max(scan, len(held) - _REACH + 1)
            if begin is None and base + scan >= piece.end:
                return
            too_long = too_long or (begin is not None and base + scan - begin > MAX_MAIL_BYTES)
            done = scan if begin is None or too_long else begin - base
            del held[:done]
            base, scan = base + done, scan - done
        if begin is not None and (too_long or begin - base < len(held)):
            yield begin, None if too_long else bytes(held[begin - base :])


def open_whole(piece: Piece) -> BinaryIO:
    """The piece's file, as it was when the source was opened.

    Raises:
        SourceError: it has changed since, so the pieces would not fit together.
    """
    place = place_of(piece.place)
    try:
        (size, _), *_ = place.facts([""])
        file = place.open()
    except OSError as error:
        raise SourceError(f"data.source: {piece.place} cannot be read: {reason(error)}") from error
    if size != piece.size:
        file.close()
        raise SourceError(
            f"data.source: {piece.place} has changed while it was read: "
            f"{piece.size:,} bytes before, {size:,} now"
        )
    return file
