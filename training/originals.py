"""Originals: mails read once more as they came, by id, where their tokens do not tell enough.

    for batch in originals(config.data, home, scored.ids).iter_batches(batch_format="pyarrow"):
        ...

Slices, baselines and disguises need a mail's bytes; a token cache keeps none.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from email.utils import parseaddr
from functools import partial
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data

from training.config import DataConfig
from training.home import Home
from training.mail import Mail, MailTextOptions, parse
from training.readers import read
from training.sources import SourceError, open_source

SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("date", pa.int64()),  # that the source itself names
        ("raw", pa.binary()),
        ("text", pa.string()),  # the mail text, where there is no raw mail
        ("place", pa.string()),  # that LABEL=PATH names, else ""
    ]
)


def originals(data: DataConfig, home: Home, ids: Iterable[str]) -> ray.data.Dataset:
    """The readable mails of these ids as SCHEMA, in the source's order, which is a cache's too.

    A task reads a piece of the source at a time, so memory does not grow with it.

    Raises:
        SourceError: there is no such source any more.
    """
    source = open_source(data.source, data.label_set, home.corpora)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    pieces = [{"piece": piece} for piece in source.pieces]
    find: Any = partial(_found, ids=frozenset(ids))  # Ray's types know no partial functions
    found = ray.data.from_items(pieces, override_num_blocks=len(pieces))
    return found.map_batches(find, batch_size=1)


def _found(batch: dict[str, Any], ids: frozenset[str]) -> Iterator[pa.Table]:
    names = SCHEMA.names
    piece = batch["piece"][0]
    place = piece.prefix if "/" in piece.prefix else ""
    for rows in read(piece):
        chosen = [
            row | {"place": place} for row in rows if row["id"] in ids and row["error"] is None
        ]
        yield pa.table({name: [row[name] for row in chosen] for name in names}, SCHEMA)


def in_order(found: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Rows with an `id`, found in the source's order, in the order of these ids.

    Mails that share an id keep the order among them.

    Raises:
        SourceError: a mail is not there any more.
    """
    place: dict[str, deque[int]] = {}
    for row, id_ in enumerate(found["id"].to_pylist()):
        place.setdefault(id_, deque()).append(row)
    rows = [place[id_].popleft() if place.get(id_) else None for id_ in ids]
    if gone := [id_ for id_, row in zip(ids, rows, strict=True) if row is None]:
        raise SourceError(
            f"data.source: {len(gone):,} of {len(ids):,} mails are not there any more, such as "
            f"{gone[0]}; evaluate once more"
        )
    return found.take(pa.array(rows, pa.int64()))


def mail_of(raw: bytes | None, text: str | None, options: MailTextOptions) -> Mail:
    """The parts of a mail that came as bytes, or else as mail text.

    Raises:
        MailError: the bytes are no mail.
    """
    if raw is not None:
        return parse(raw, options)
    head, _, body = (text or "").partition("\n\n")
    fields = dict(line.partition(": ")[::2] for line in reversed(head.split("\n")))
    sender = fields.get("from", "")
    address = parseaddr(sender)[1].lower()
    return Mail(subject=fields.get("subject", ""), sender=sender, body=body, address=address)
