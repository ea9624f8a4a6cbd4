"""Originals: mails read once more as they came, by id, where their tokens do not tell enough.

    for batch in originals(config.data, home, scored.ids).iter_batches(batch_format="pyarrow"):
        ...

Slices, baselines and disguises need a mail's bytes; a token cache keeps none.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data

from training.config import DataConfig
from training.home import Home
from training.readers import read
from training.sources import open_source

SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("date", pa.int64()),  # that the source itself names
        ("raw", pa.binary()),
        ("text", pa.string()),  # the mail text, where there is no raw mail
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
    for rows in read(batch["piece"][0]):
        chosen = [row for row in rows if row["id"] in ids and row["error"] is None]
        yield pa.table({name: [row[name] for row in chosen] for name in names}, SCHEMA)
