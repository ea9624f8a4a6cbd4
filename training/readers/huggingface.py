"""Hugging Face datasets: of the hub, or saved with `save_to_disk`; through `datasets`."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.readers.columns import SPLITS, arrow_rows, check_columns
from training.readers.piece import READ_MAILS, Piece, Row, SourceError, reason, some
from training.readers.place import base_name


def open_hf(name: str, labels: tuple[str, ...] | None) -> tuple[list[Piece], int, str]:
    """The pieces of a dataset, how many mails it has, and its fingerprint.

    Its splits are splits of the mails where it has several and their names say which; a dataset
    with one split has none.

    Raises:
        SourceError: it cannot be had, lacks a column, or its label names are not `labels`.
    """
    hf_dataset.cache_clear()  # it may have been saved again since
    splits = hf_dataset(name)
    pieces: list[Piece] = []
    for part, dataset in splits.items():
        columns = check_columns(f"hf:{name}", dataset.column_names, labelled=labels is not None)
        if labels is not None:
            named = _names(dataset.features[columns["label"]]) or labels
            if unknown := sorted(set(named) - set(labels)):
                raise SourceError(
                    f"data.source: hf:{name} has labels {some(unknown)}; "
                    f"data.labels allows {', '.join(labels)}"
                )
        pieces += [
            Piece(
                reader="hf",
                place=name,
                allowed=labels,
                prefix=part or base_name(name),
                paths=tuple(columns.values()),
                split=SPLITS.get(part.lower()) if len(splits) > 1 else None,
                part=part,
                start=start,
                end=min(start + READ_MAILS, len(dataset)),
            )
            for start in range(0, len(dataset), READ_MAILS)
        ]
    facts = [(part, len(dataset), dataset._fingerprint) for part, dataset in splits.items()]
    files = sorted(Path(name).rglob("*.arrow")) if is_path(name) and "://" not in name else []
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return pieces, sum(map(len, splits.values())), repr((facts, stats))


def hf(piece: Piece) -> Iterator[Row]:
    """The rows `start` to `end` of one split of a Hugging Face dataset."""
    dataset = hf_dataset(piece.place)[piece.part]
    features = dataset.features
    classes = {
        column.strip().lower(): names
        for column, feature in features.items()
        if (names := _names(feature))
    }
    rows = dataset.select_columns(list(piece.paths)).with_format("arrow")
    batches = (
        rows[start : min(start + READ_MAILS, piece.end)]
        for start in range(piece.start, piece.end, READ_MAILS)
    )
    yield from arrow_rows(batches, piece.prefix, piece.start, piece, classes)


def _names(feature: Any) -> list[str] | None:
    """Those of a ClassLabel, or of a list of them."""
    found: list[str] | None = getattr(getattr(feature, "feature", feature), "names", None)
    return found


@lru_cache(maxsize=4)
def hf_dataset(name: str) -> dict[str, Any]:
    """The splits of a dataset: saved with save_to_disk, or of the hub as `NAME` or `NAME:CONFIG`.

    Raises:
        SourceError: it cannot be had, with the reason.
    """
    import datasets  # here, because it takes a second to import

    datasets.disable_progress_bars()
    try:
        if is_path(name):
            found = datasets.load_from_disk(name)
        else:
            repository, _, config = name.partition(":")
            found = datasets.load_dataset(repository, config or None)
    except Exception as error:  # of the hub, the network, the file system or the data
        raise SourceError(f"data.source: hf:{name} cannot be loaded: {reason(error)}") from error
    return dict(found) if isinstance(found, dict) else {"": found}


def is_path(name: str) -> bool:
    """Whether a dataset's name is that of a folder rather than one of the hub."""
    return "://" in name or name[:1] in ("/", ".", "~")
