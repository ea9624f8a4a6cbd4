"""Readers: what one Ray task does with a piece of a source. A row is a mail, or why it is none."""

from collections.abc import Callable, Iterator

from training import synthetic
from training.readers import files, huggingface, tabular
from training.readers.piece import Piece, ReaderName, Row, batches


def read(piece: Piece) -> Iterator[list[Row]]:
    """The mails of a piece, in batches of at most READ_MAILS rows and about READ_BYTES.

    A mail that cannot be read is a row with an error.

    Raises:
        SourceError: the piece's file is gone or has changed since the source was opened.
    """
    yield from batches(_READERS[piece.reader](piece))


def _synthetic(piece: Piece) -> Iterator[Row]:
    for id_, label, raw in synthetic.mails(piece.end, piece.start):
        yield {"id": id_, "label": label, "group": label, "raw": raw}


_READERS: dict[ReaderName, Callable[[Piece], Iterator[Row]]] = {
    "files": files.files,
    "maildir": files.files,
    "index": files.files,
    "mbox": files.mbox,
    "jsonl": tabular.jsonl,
    "csv": tabular.csv,
    "parquet": tabular.parquet,
    "hf": huggingface.hf,
    "synthetic": _synthetic,
}
