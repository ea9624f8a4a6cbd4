"""Sources: where mail comes from. Every source gives the same rows, in pieces that tasks read.

Opening a source lists it and never reads a mail, so a driver holds a path for each at most:

    spamassassin    synthetic:N    hf:NAME[:CONFIG]    hf:/saved/dataset
    folder          a sub-folder for each label, of raw files or Maildirs; or tables in parts
    full/index      lines such as `spam ../data/inmail.1` (or any file *.index)
    mails.jsonl     also .ndjson, .csv, .tsv, .parquet
    spam=a.mbox,ham=b       mbox files, Maildirs and folders, each with its label

Wherever a path can stand, a URI (s3://, gs://, hdfs://) can as well. Where labels are not wanted, a
folder is one of raw files at any depth, Maildirs, or else mbox files; an mbox file may stand alone,
and tables need no label.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from training import corpus
from training.labels import Labels
from training.readers.files import open_mbox
from training.readers.huggingface import is_path, open_hf
from training.readers.piece import (
    COLUMNS,
    READ_BYTES,
    READ_MAILS,
    Piece,
    ReaderName,
    SourceError,
    printable,
    reason,
    some,
)
from training.readers.place import Facts, absolute, base_name, file_fingerprint, parent, place_of
from training.readers.tabular import SUFFIXES, open_table

__all__ = ["COLUMNS", "READ_MAILS", "Piece", "Source", "SourceError", "open_source"]

READERS_VERSION: Final = 1
"""Raise it with every change of the readers that gives other rows for the same files."""

_ALLOWED: Final = (
    "allowed are spamassassin, synthetic:N, hf:NAME, LABEL=PATH,LABEL=PATH, or the path or URI of "
    "a folder, an index file (index, .index) or a file .jsonl, .ndjson, .csv, .tsv or .parquet"
)
Names = tuple[str, ...] | None
"""The labels that are allowed; None where they are not wanted."""

_PAIR: Final = re.compile(r"([^=/:,]+)=(.+)")
_NEXT_PAIR: Final = re.compile(r",(?=[^=/:,]+=)")


@dataclass(frozen=True, slots=True)
class Source:
    """Mail that is known but not yet read."""

    name: str
    fingerprint: str
    """A digest that changes whenever a mail, a label or the set of them does."""
    pieces: tuple[Piece, ...]
    mails: int | None
    """How many mails it has; None where only reading tells."""


@dataclass(slots=True)
class _Opened:
    """A source in the making."""

    digest: Any
    pieces: list[Piece]
    mails: int | None = 0

    def add(self, pieces: Iterable[Piece], mails: int | None, *facts: object) -> None:
        self.pieces.extend(pieces)
        self.mails = None if self.mails is None or mails is None else self.mails + mails
        self.digest.update(repr(facts).encode("utf-8", "surrogateescape"))


def open_source(name: str, allowed: Labels | None, corpora: Path) -> Source:
    """The mails of a source, as config key `data.source` spells it.

    With `allowed` None labels are not wanted: a mail needs none, and keeps any that it comes with.

    Raises:
        SourceError: there is no such source, it is empty, it lacks a column, or its labels are
            not `allowed` as far as that is known before reading (else the row has an error).
    """
    labels = None if allowed is None else allowed.names
    multi = allowed is not None and allowed.multi
    facts = (READERS_VERSION, labels and sorted(labels), *(["multi"] if multi else []))
    opened = _Opened(hashlib.sha256(repr(facts).encode()), [])
    kind, _, rest = name.partition(":")
    try:
        if name == "spamassassin":
            _spamassassin(opened, corpora / "spamassassin", labels)
        elif kind == "synthetic" and rest.isdecimal():
            _synthetic(opened, int(rest), labels)
        elif kind == "hf" and rest:
            opened.add(*open_hf(absolute(rest) if is_path(rest) else rest, labels))
        elif _PAIR.match(name) and not Path(name).exists():
            _pairs(opened, name, labels)
        else:
            _place(opened, absolute(name), name, labels)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"data.source: {name} cannot be read: {reason(error)}") from error
    if not opened.pieces:
        raise SourceError(f"data.source: {name} has no mails")
    pieces = [replace(piece, multi=multi) for piece in opened.pieces]
    return Source(name, opened.digest.hexdigest(), tuple(pieces), opened.mails)


def _check_labels(name: str, found: Iterable[str], labels: Names) -> None:
    if labels is not None and (unknown := sorted(set(found) - set(labels))):
        raise SourceError(
            f"data.source: {name} has labels {some(map(printable, unknown))}; "
            f"data.labels allows {', '.join(labels)}"
        )


def _spamassassin(opened: _Opened, folder: Path, labels: Names) -> None:
    if not (folder / corpus.MANIFEST).is_file():
        raise SourceError(
            "data.source: spamassassin is not here yet; run `mailray data fetch spamassassin`"
        )
    groups = {g: "spam" if g.startswith("spam") else "ham" for g in corpus.GROUPS}
    _check_labels("spamassassin", groups.values(), labels)
    _tree(opened, absolute(str(folder)), groups, labels)


def _synthetic(opened: _Opened, count: int, labels: Names) -> None:
    _check_labels("synthetic", ("ham", "spam"), labels)
    starts = range(0, count, READ_MAILS)
    opened.add(
        (
            Piece(
                reader="synthetic",
                place="synthetic",
                allowed=labels,
                start=start,
                end=min(start + READ_MAILS, count),
            )
            for start in starts
        ),
        count,
        "synthetic",
        count,
    )


def _place(opened: _Opened, name: str, spelled: str, labels: Names) -> None:
    kind = place_of(name).kind()
    base = base_name(name)
    if kind == "folder":
        _folder(opened, name, labels)
    elif kind is None:
        raise SourceError(f"data.source: {spelled} is no folder or file here; {_ALLOWED}")
    elif base == "index" or base.endswith(".index"):
        _index(opened, name, labels)
    elif base.endswith(SUFFIXES):
        _file(opened, name, labels, None)
    elif labels is None:
        _file(opened, name, labels, (None, printable(base)))
    elif base.endswith(".mbox"):
        raise SourceError(
            f"data.source: {spelled} does not say its label; "
            f"write {labels[-1]}={spelled},{labels[0]}=OTHER"
        )
    else:
        raise SourceError(f"data.source: {spelled} is no kind of file that can be read; {_ALLOWED}")


def _pairs(opened: _Opened, name: str, labels: Names) -> None:
    """LABEL=PATH,LABEL=PATH: an mbox file, a Maildir or any folder each."""
    pairs = []
    for pair in _NEXT_PAIR.split(name):
        label, _, path = pair.partition("=")
        pairs.append((label.strip(), absolute(path.strip())))
    _check_labels(name, (label for label, _ in pairs), labels)
    names = [f"{label}/{base_name(path)}" for label, path in pairs]
    identities: dict[object, str] = {}
    for (label, path), short in zip(pairs, names, strict=True):
        place = place_of(path)
        kind = place.kind()
        if kind is None:
            raise SourceError(f"data.source: {path} is no folder or mbox file here")
        identity = place.identity("")
        if identity in identities:
            raise SourceError(f"data.source: {path} is named twice")
        identities[identity] = path
        prefix = short if names.count(short) == 1 else f"{label}/{path.lstrip('/')}"
        if kind == "folder":
            _tree(opened, path, {"": label}, labels, printable(prefix))
        else:
            _file(opened, path, labels, (label, printable(prefix)))


def _folder(opened: _Opened, name: str, labels: Names) -> None:
    """A sub-folder for each label, mails at any depth below it; or a table in several files."""
    place = place_of(name)
    folders, files = place.children()
    if labels is None:
        _any_folder(opened, name, folders, files)
        return
    found = [folder for folder in folders if folder in labels]
    if not found and (parts := [file for file in files if file.endswith(SUFFIXES)]):
        for part in parts:
            _file(opened, _below(name, part), labels, None)
        return
    if not found:
        has = f"; it has {some(map(printable, folders))}" if folders else ""
        raise SourceError(
            f"data.source: {name} needs a sub-folder for each label: {', '.join(labels)}{has}"
        )
    _check_labels(name, folders, labels)
    identities: dict[object, str] = {}
    for folder in found:
        same = identities.setdefault(place.identity(folder), folder)
        if same != folder:
            raise SourceError(f"data.source: {name}: {same} and {folder} are the same folder")
    _tree(opened, name, {label: label for label in labels if label in found}, labels)


def _any_folder(opened: _Opened, name: str, folders: list[str], files: list[str]) -> None:
    """A folder that says no labels: of mbox files or tables where it has nothing else."""
    if folders or not files or not all(file.endswith((".mbox", *SUFFIXES)) for file in files):
        _tree(opened, name, {"": None}, None)
        return
    for file in files:
        mbox = (None, printable(file)) if file.endswith(".mbox") else None
        _file(opened, _below(name, file), None, mbox)


def _below(name: str, part: str) -> str:
    path, mark, options = name.partition("?") if "://" in name else (name, "", "")
    return f"{path.rstrip('/')}/{part}{mark}{options}"


def _tree(
    opened: _Opened,
    name: str,
    label_of: Mapping[str, str | None],
    labels: Names,
    prefix: str = "",
) -> None:
    """The files below each folder of `label_of`."""

    def mails() -> Iterator[tuple[ReaderName, str, str | None, Facts]]:
        place = place_of(name)
        for folder, label in label_of.items():
            for entry in place.walk(folder):
                yield "maildir" if entry.maildir else "files", entry.path, label, entry.facts

    _cut_files(opened, name, mails(), labels, prefix)


def _cut_files(
    opened: _Opened,
    name: str,
    mails: Iterable[tuple[ReaderName, str, str | None, Facts]],
    labels: Names,
    prefix: str = "",
) -> None:
    """Pieces of READ_MAILS files or READ_BYTES, of one reader each."""
    paths: list[str] = []
    of_paths: list[str | None] = []
    size = 0
    now: ReaderName = "files"

    def piece() -> Piece:
        return Piece(
            reader=now,
            place=name,
            allowed=labels,
            prefix=prefix,
            paths=tuple(paths),
            path_labels=tuple(of_paths),
        )

    for reader, path, label, facts in mails:
        if paths and (len(paths) == READ_MAILS or size + facts[0] > READ_BYTES or reader != now):
            opened.add([piece()], len(paths))
            paths, of_paths, size = [], [], 0
        now = reader
        paths.append(path)
        of_paths.append(label)
        size += max(facts[0], 0)
        opened.add([], 0, prefix, path, label, *facts)
    if paths:
        opened.add([piece()], len(paths))


def _index(opened: _Opened, name: str, labels: Names) -> None:
    """An index file: a label and a path, relative to the index file, on each line."""
    folder = parent(name)
    place = place_of(folder)
    lines: list[tuple[str, str]] = []
    unknown: set[str] = set()
    known = {label: label for label in labels or ()}
    with place_of(name).open() as file:
        content = file.read()  # some 30 bytes for each mail
    for number, line in enumerate(io.BytesIO(content), 1):
        label, _, path = line.decode("utf-8", "surrogateescape").strip().partition(" ")
        if not label:
            continue
        if not path:
            raise SourceError(
                f"data.source: {name}, line {number}: a label and a path are needed, such as "
                f"{labels[0] if labels else 'spam'} ../data/inmail.1"
            )
        if labels is None:
            known.setdefault(label, label)
        if label in known:
            lines.append((known[label], path.strip()))
        else:
            unknown.add(label)
    _check_labels(name, unknown, labels)

    def mails() -> Iterator[tuple[ReaderName, str, str | None, Facts]]:
        for start in range(0, len(lines), READ_MAILS):
            some_lines = lines[start : start + READ_MAILS]
            facts = place.facts([path for _, path in some_lines])
            for (label, path), of_file in zip(some_lines, facts, strict=True):
                yield "index", path, label, of_file

    _cut_files(opened, folder, mails(), labels)


def _file(opened: _Opened, name: str, labels: Names, mbox: tuple[str | None, str] | None) -> None:
    """A file of many mails: an mbox with its label and the prefix of its ids, or a table."""
    place = place_of(name)
    facts = place.facts([""])[0]
    label, prefix = mbox or (None, printable(base_name(name)))
    whole = Piece(
        reader="mbox", place=name, allowed=labels, prefix=prefix, label=label, size=facts[0]
    )
    pieces, mails = (open_mbox(whole), None) if mbox else open_table(whole)
    opened.add(pieces, mails, prefix, label, file_fingerprint(place, facts))
