"""Counting: what linear models read of a source's mails, and their verdicts, as Ray Data jobs.

A task reads a piece of the source, counts its mails, and scores them where there are models
already; counts come here only of the mails to learn from.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from training.config import DataConfig
from training.home import Home
from training.linear import KINDS, SCHEMA, Kind, Linear, features
from training.mail import MailTextOptions, text_options
from training.mails import Mails
from training.originals import originals
from training.sources import SourceError

Models = dict[Kind, Linear]
OnProgress = Callable[[int], None]


def read(
    data: DataConfig, home: Home, mails: Mails, rows: np.ndarray, on_progress: OnProgress
) -> pa.Table:
    """`features` of these rows of the cache, in their order."""
    count: Any = partial(features, options=text_options(data.extras))
    return _gathered(data, home, mails, rows, count, SCHEMA, on_progress)


def scores(
    data: DataConfig,
    home: Home,
    mails: Mails,
    rows: np.ndarray,
    models: Sequence[Models],
    which: np.ndarray,
    on_progress: OnProgress,
) -> dict[Kind, np.ndarray]:
    """float32 [rows, labels] of each kind; `which` of the models judges each row, int [rows]."""
    ids = mails.cache.table()["id"].take(pa.array(rows)).to_pylist()
    judge: Any = partial(
        _judged,
        options=text_options(data.extras),
        models=ray.put(models),
        which=ray.put(dict(zip(ids, which.tolist(), strict=True))),
    )
    schema = pa.schema([("id", pa.string()), *((kind, pa.list_(pa.float32())) for kind in KINDS)])
    found = _gathered(data, home, mails, rows, judge, schema, on_progress)
    count = len(data.labels)
    return {
        kind: found[kind].combine_chunks().flatten().to_numpy().reshape(-1, count) for kind in KINDS
    }


def _judged(mails: pa.Table, options: MailTextOptions, models: Any, which: Any) -> pa.Table:
    """Id, and the scores of each kind."""
    counted = features(mails, options)
    every, of = ray.get([models, which])
    ids = counted["id"].to_pylist()
    chosen = np.array([of[id_] for id_ in ids], int)
    columns: dict[str, Any] = {"id": pa.array(ids, pa.string())}
    for kind in KINDS:
        made: list[Any] = [None] * len(ids)
        for number in np.unique(chosen):
            mine = np.flatnonzero(chosen == number)
            for at, row in zip(mine, every[number][kind].scores(counted.take(mine)), strict=True):
                made[at] = row
        columns[kind] = pa.array(made, pa.list_(pa.float32()))
    return pa.table(columns)


def _gathered(
    data: DataConfig,
    home: Home,
    mails: Mails,
    rows: np.ndarray,
    task: Any,
    schema: pa.Schema,
    on_progress: OnProgress,
) -> pa.Table:
    """What a task makes of the mails of these rows, a row each, in their order."""
    table = mails.cache.table()
    wanted = pc.unique(table["id"].take(pa.array(rows)))
    job = originals(data, home, wanted.to_pylist()).map_batches(
        task, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
    )
    parts, done = [schema.empty_table()], 0
    for part in job.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(part, pa.Table)
        parts.append(part.select(schema.names).cast(schema))
        done += part.num_rows
        on_progress(min(done, len(rows)))
    found = pa.concat_tables(parts)
    # An id may stand for several mails, of which others are on other sides.
    every = np.flatnonzero(pc.is_in(table["id"], wanted).to_numpy() & (mails.lengths > 0))
    if found["id"].to_pylist() != table["id"].take(pa.array(every)).to_pylist():
        raise SourceError(
            f"{data.source} has changed since its tokens were made; the same command once more "
            "makes them anew"
        )
    return found.take(np.searchsorted(every, rows))
