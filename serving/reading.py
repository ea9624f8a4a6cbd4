"""Reading, of bulk classification: from a piece of a source to tokens, a part at a time.

    for table in read_parts({"task": [Task(0, piece, frozenset())]}, "path/of/a/bundle"):
        ...

A mail that cannot be read is an error in its part; a fault that must end the whole job is a
row too, since Ray would wrap an exception, and might begin the task anew.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from tokenizers import Tokenizer

from serving.parts import PART_MAILS
from training.bundle import Bundle, BundleError, load
from training.mail import MailError, MailTextOptions, mail_text, text_options
from training.readers import read
from training.sources import Piece, SourceError
from training.tokenizing import encode

SCHEMA: Final = pa.schema(
    [
        ("piece", pa.int32()),
        ("part", pa.int32()),
        ("last", pa.bool_()),
        ("ids", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),  # the source's own
        ("tokens", pa.list_(pa.list_(pa.int32()))),  # null where there is an error
        ("errors", pa.list_(pa.string())),
        ("fault", pa.string()),  # why the whole job must end
    ]
)
"""A row a part."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one task reads."""

    number: int
    """Of the piece in the source."""
    piece: Piece
    have: frozenset[int]
    """Its parts that are there already."""


def read_parts(batch: Mapping[str, Any], bundle: str) -> Iterator[pa.Table]:
    """The parts of a piece that are not there yet, as `SCHEMA`."""
    task: Task = batch["task"][0]
    try:
        tokenize = _Tokenize.of(bundle)
        for part, rows, last in _cut(task.piece):
            if part not in task.have:
                said = {"piece": task.number, "part": part, "last": last}
                yield _read_table(said | tokenize(rows))
    except (SourceError, BundleError) as error:
        yield _read_table({"fault": f"{type(error).__name__}: {error}"})


def _read_table(row: Mapping[str, Any]) -> pa.Table:
    return pa.table({name: [row.get(name)] for name in SCHEMA.names}, SCHEMA)


def _cut(piece: Piece) -> Iterator[tuple[int, list[dict[str, Any]], bool]]:
    """Number and mails of each part of a piece, and whether it is the last; at least one."""
    held: list[dict[str, Any]] = []
    part = 0
    for rows in read(piece):
        for at in range(0, len(rows), PART_MAILS):
            if held:
                yield part, held, False
                part += 1
            held = rows[at : at + PART_MAILS]
    yield part, held, True


class _Tokenize:
    """From the rows of a reader to what a model scores."""

    def __init__(self, bundle: Bundle) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tasks and models are the parallelism
        self._tokenizer: Tokenizer = bundle.tokenizer()
        self._options: MailTextOptions = text_options(bundle.extras)
        self._length, self._head = bundle.read_length, bundle.keep_head

    @staticmethod
    @lru_cache(maxsize=1)
    def of(path: str) -> "_Tokenize":
        """That of a bundle; a process that reads many pieces loads it once."""
        return _Tokenize(load(Path(path)))

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        texts, errors = [], []
        for row in rows:
            text, error = "", row["error"]
            if error is None:
                try:
                    given = row["text"]
                    text = mail_text(row["raw"], self._options) if given is None else given
                except MailError as fault:
                    error = str(fault)
            texts.append(text)
            errors.append(error)
        tokens = encode(self._tokenizer, texts, self._length, self._head)
        return {
            "ids": [row["id"] for row in rows],
            "labels": [row["label"] for row in rows],
            "tokens": [t if e is None else None for t, e in zip(tokens, errors, strict=True)],
            "errors": errors,
        }
