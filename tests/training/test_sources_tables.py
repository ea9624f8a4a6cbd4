"""Sources that are tables or saved datasets: one or more files, opened without reading them."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.opened import opened as _open
from tests.training.opened import rows_of as _rows
from tests.training.opened import written as _write
from training.sources import SourceError


def test_a_changed_line_of_a_table_changes_the_fingerprint(tmp_path: Path) -> None:
    file = _write(tmp_path / "m.csv", b"label,body\nham,x\n")
    os.utime(file, ns=(0, 0))
    before = _open(file).fingerprint
    assert _open(file).fingerprint == before
    _write(file, b"label,body\nham,y\n")
    os.utime(file, ns=(0, 0))
    assert _open(file).fingerprint != before


def test_a_table_in_several_files_is_one_source(tmp_path: Path) -> None:
    for name in ("0.csv", "1.csv"):
        _write(tmp_path / name, b"label,body\nham,x\n")
    assert [row["id"] for row in _rows(_open(tmp_path))] == ["0.csv:0", "1.csv:0"]


def test_a_large_table_is_opened_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    line = json.dumps({"label": "ham", "body": "x" * 500}) + "\n"
    file.write_text(line * 50_000)
    _open(file)  # imports and caches
    tracemalloc.start()
    source = _open(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.stat().st_size > 25e6
    assert peak < 8e6
    assert len(source.pieces) == 7
    assert source.mails is None
    assert len(pickle.dumps(source.pieces)) < 5_000


def test_a_dataset_saved_to_disk_keeps_its_splits_and_label_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"Text": datasets.Value("string"), "label": datasets.ClassLabel(names=["spam", "ham"])}
    )
    parts = {
        name: datasets.Dataset.from_dict({"Text": ["one", "two"], "label": [0, 1]}, features)
        for name in ("train", "dev", "extra")
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    source = _open(f"hf:{tmp_path}/saved")
    assert source.mails == 6
    rows = _rows(source)
    assert [(row["id"], row["label"], row["split"]) for row in rows] == [
        ("train:0", "spam", "train"),
        ("train:1", "ham", "train"),
        ("dev:0", "spam", "validation"),
        ("dev:1", "ham", "validation"),
        ("extra:0", "spam", None),
        ("extra:1", "ham", None),
    ]
    assert "two" in rows[1]["text"]
    assert _open(f"hf:{tmp_path}/saved").fingerprint == source.fingerprint
    with pytest.raises(SourceError, match=r"has labels ham; data.labels allows news, spam"):
        _open(f"hf:{tmp_path}/saved", ("news", "spam"))


def test_the_one_split_of_a_dataset_is_no_split_of_the_mails(tmp_path: Path) -> None:
    part = datasets.Dataset.from_dict({"body": ["one"], "label": ["ham"]})
    part.save_to_disk(tmp_path / "saved")
    assert [(r["id"], r["split"]) for r in _rows(_open(f"hf:{tmp_path}/saved"))] == [
        ("saved:0", None)
    ]


def test_parquet_is_cut_at_its_row_groups(tmp_path: Path) -> None:
    table = pa.table({"label": ["ham"] * 5_000, "body": ["x"] * 5_000})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=400)
    source = _open(tmp_path / "m.parquet")
    assert (source.mails, len(source.pieces)) == (5_000, 6)
    assert [row["id"] for row in _rows(source)] == [f"m.parquet:{n}" for n in range(5_000)]
