"""Parts: what bulk classification leaves behind, and how it knows what is missing.

    DIR/manifest.json                  the model, the mails and the rule; written first
    DIR/part-000012-00003.parquet      mails 768 to 1,023 of piece 12 of the source
    DIR/part-000012-00004-end.parquet  the last of that piece
    DIR/summary.json                   written last: its existence means that every mail is there

A piece is what one task reads of a source, and is cut in the same way each time. A part is written
beside its place and renamed, so it is whole or absent, and its name alone says which mails it has:
what a killed command left undone is what has no part.
"""

import hashlib
import json
import os
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from serving.decision import Decision
from serving.drift import Counts, compared
from training.bundle import Bundle
from training.reference import Reference
from training.schema import ConfigError
from training.sources import Source

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
SUMMARY: Final = "summary.json"
PART_MAILS: Final = 256
"""Mails of a part at most: what a killed process has scored in vain, and what a progress line waits
for. Sorted by length they already leave little padding."""

_NAME: Final = re.compile(r"part-(\d+)-(\d+)(-end)?\.parquet")
_FREE: Final = frozenset(["source"])
"""Of the manifest, what may differ: another spelling of the same mails."""


def schema(labels: tuple[str, ...], *, multi: bool) -> pa.Schema:
    """The columns of a part, a row a mail in the source's order."""
    several = [("labels", pa.list_(pa.string()))] if multi else []
    return pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.string()),  # the verdict; null where the mail could not be read
            *several,
            ("probability", pa.float32()),  # of that label
            *((f"p_{label}", pa.float32()) for label in labels),
            ("tokens", pa.int32()),  # that the model reads of the mail
            ("unsure", pa.bool_()),
            ("operating_point", pa.string()),
            ("error", pa.string()),  # why there is no verdict
            ("source_label", pa.string()),  # what the source itself says, if anything
            ("model", pa.string()),
            ("version", pa.string()),
        ]
    )


def manifest(
    bundle: Bundle, source: Source, decision: Decision, runtime: str, precision: str
) -> dict[str, Any]:
    """All that decides what stands in the parts."""
    return {
        "format": FORMAT,
        "model": bundle.name,
        "version": bundle.version,
        "weights": _digest(bundle.path),
        "mail_text_version": bundle.mail_text_version,
        "labels": list(bundle.labels),
        "source": source.name,
        "fingerprint": source.fingerprint,
        "runtime": runtime,
        "precision": precision,
        "operating_point": decision.point,
        "threshold": decision.threshold,
        "part_mails": PART_MAILS,
    }


def _digest(bundle: Path) -> str:
    digest = hashlib.sha256()
    for name in ("bundle.json", "model.safetensors", "tokenizer.json"):
        with (bundle / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def begun(folder: Path) -> dict[str, Any] | None:
    """The manifest of a directory that was begun.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        known = json.loads((folder / MANIFEST).read_text("utf-8"))
        assert isinstance(known, dict)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AssertionError) as error:
        raise ConfigError(
            f"--out: {folder / MANIFEST} is damaged; name another directory"
        ) from error
    return {"runtime": "torch"} | known  # before there was a choice


def begin(folder: Path, facts: Mapping[str, Any]) -> None:
    """Make the directory and its manifest, or see that it is of the same.

    Raises:
        ConfigError: it has something else in it, or parts of another model, source or rule.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: {folder} is a file; name a directory")
    known = begun(folder)
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ConfigError(
                f"--out: {folder} has other things in it; name a directory that is new or empty"
            )
        _write(folder / MANIFEST, facts)
        return
    other = [key for key in facts if key not in _FREE and known.get(key) != facts[key]]
    if "fingerprint" in other and known.get("source") == facts["source"]:
        raise ConfigError(
            f"--out: the mails of {facts['source']} have changed since {folder} was begun; name "
            "another directory"
        )
    told = {"fingerprint": "source"}
    keys = [told.get(key, key) for key in other if key != "weights" or other == ["weights"]]
    if keys:
        was, now = (", ".join(f"{key} {of.get(key)}" for key in keys) for of in (known, facts))
        raise ConfigError(
            f"--out: {folder} was begun with {was}; this call has {now}: name another directory"
        )


def _write(file: Path, facts: Mapping[str, Any]) -> None:
    scratch = _beside(file)
    scratch.write_text(json.dumps(facts, indent=2), "utf-8")
    scratch.replace(file)


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")


def write_part(folder: Path, piece: int, part: int, table: pa.Table, *, last: bool) -> None:
    """One part, whole or not at all, even if the machine loses its power."""
    file = folder / f"part-{piece:06d}-{part:05d}{'-end' if last else ''}.parquet"
    scratch = _beside(file)
    with scratch.open("wb") as sink:
        pq.write_table(table, sink, compression="zstd")
        sink.flush()
        os.fsync(sink.fileno())
    scratch.replace(file)


def there(folder: Path) -> tuple[dict[int, list[int]], set[int]]:
    """The parts of each piece that are there, and the pieces of which all are."""
    parts: dict[int, list[int]] = defaultdict(list)
    ends: dict[int, int] = {}
    for name in _names(folder):
        found = _NAME.fullmatch(name)
        assert found
        piece, part = int(found[1]), int(found[2])
        parts[piece].append(part)
        if found[3]:
            ends[piece] = part
    return parts, {piece for piece, end in ends.items() if len(parts[piece]) == end + 1}


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name))


def mails(folder: Path) -> int:
    """How many mails have a row."""
    parts = pyarrow.dataset.dataset([str(folder / name) for name in _names(folder)])
    return int(parts.count_rows())


def summarize(folder: Path, facts: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """What all parts say together, written to the directory; what was left half-written goes."""
    known = bundle.reference
    came = known and Counts.none(known)
    labels: dict[str, int] = dict.fromkeys(facts["labels"], 0)
    counts = {"mails": 0, "unsure": 0, "errors": 0}
    for table in _batches(folder, "tokens", *(f"p_{label}" for label in bundle.labels)):
        counts["mails"] += table.num_rows
        if known and came:
            came = came.plus(_counted(table.filter(table["error"].is_null()), bundle, known))
        counts["unsure"] += table["unsure"].to_pylist().count(True)
        counts["errors"] += table.num_rows - table["error"].null_count
        for label in table["label"].drop_null().value_counts().to_pylist():
            labels[label["values"]] += label["counts"]
    for scratch in folder.glob(".part-*"):
        scratch.unlink(missing_ok=True)
    found: dict[str, Any] = counts | {"labels": labels}
    if known and came:
        found["drift"] = {
            each.quantity: {"state": each.state, "psi": each.psi, "chance": each.chance}
            for each in compared(known, came)
        }
    _write(folder / SUMMARY, found)
    return found


def _counted(table: pa.RecordBatch, bundle: Bundle, known: Reference) -> Counts:
    scores = np.stack([table[f"p_{label}"].to_numpy() for label in bundle.labels], axis=1)
    lengths = table["tokens"].to_numpy(zero_copy_only=False)
    return Counts.of(known, bundle.label_set, scores, lengths)


def first_error(folder: Path) -> tuple[str, str] | None:
    """Id and reason of a mail without a verdict."""
    for table in _batches(folder):
        for row in table.filter(table["error"].is_valid()).slice(0, 1).to_pylist():
            return row["id"], row["error"]
    return None


def _batches(folder: Path, *more: str) -> Iterator[pa.RecordBatch]:
    for name in _names(folder):
        yield from pq.ParquetFile(folder / name).iter_batches(
            columns=["id", "label", "unsure", "error", *more]
        )
