"""Sources without labels, as bulk reads them: the same mails, and any label a place says."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.opened import MAIL
from tests.training.opened import opened as _open
from tests.training.opened import rows_of as _rows
from tests.training.opened import written as _write
from training.sources import Source, SourceError, open_source


def _unlabelled(name: Path | str) -> Source:
    return open_source(str(name), None, Path("nowhere"))


def _said(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(row["id"], row["label"], row["error"]) for row in _rows(source)]


def test_without_labels_a_folder_is_one_of_raw_files(tmp_path: Path) -> None:
    for name in ("a.eml", "2020/b", "ham/c", "desk/cur/d:2,S", "desk/new/e", ".git/x"):
        _write(tmp_path / name)
    source = _unlabelled(tmp_path)
    assert source.mails == 5
    assert _said(source) == [
        (id_, None, None) for id_ in ("a.eml", "2020/b", "desk/d", "desk/e", "ham/c")
    ]


def test_without_labels_a_maildir_and_an_mbox_file_stand_alone(tmp_path: Path) -> None:
    _write(tmp_path / "desk/cur/d:2,S")
    _write(tmp_path / "desk/new/e")
    assert [id_ for id_, _, _ in _said(_unlabelled(tmp_path / "desk"))] == ["d", "e"]
    box = b"From a Mon Jan  1 00:00:00 2024\n" + MAIL + b"\n"
    for name in ("a.mbox", "inbox"):
        file = _write(tmp_path / "boxes" / name, box + box)
        assert [id_ for id_, _, _ in _said(_unlabelled(file))] == [
            f"{name}:0",
            f"{name}:{len(box)}",
        ]
    (tmp_path / "boxes/inbox").rename(tmp_path / "boxes/b.mbox")
    assert len(_said(_unlabelled(tmp_path / "boxes"))) == 4


def test_without_labels_tables_need_no_label_and_keep_any(tmp_path: Path) -> None:
    lines = [{"body": "x"}, {"body": "y", "label": "odd", "split": "mine"}, {"body": ""}]
    file = _write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, lines)).encode())
    labels = [row["label"] for row in _rows(_unlabelled(file))]
    assert labels == [None, "odd", None]
    assert [row["error"] for row in _rows(_unlabelled(file))][:2] == [None, None]
    _write(tmp_path / "m.csv", b"id,subject\n7,x\n")
    assert _said(_unlabelled(tmp_path / "m.csv")) == [("7", None, None)]
    pq.write_table(pa.table({"text": ["x"], "label": [3]}), tmp_path / "m.parquet")
    assert _said(_unlabelled(tmp_path / "m.parquet")) == [("m.parquet:0", "3", None)]
    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(str(tmp_path / "saved"))
    assert _said(_unlabelled(f"hf:{tmp_path / 'saved'}")) == [("saved:0", None, None)]


def test_without_labels_those_that_a_place_says_are_kept(tmp_path: Path) -> None:
    for name in ("x/a", "y/b"):
        _write(tmp_path / name)
    assert _said(_unlabelled(f"odd={tmp_path / 'x'},ham={tmp_path / 'y'}")) == [
        ("odd/x/a", "odd", None), ("ham/y/b", "ham", None),
    ]  # fmt: skip
    _write(tmp_path / "full/index", b"odd ../x/a\nspam ../y/b\n")
    assert [label for _, label, _ in _said(_unlabelled(tmp_path / "full/index"))] == ["odd", "spam"]


def test_without_labels_a_source_says_what_it_lacks(tmp_path: Path) -> None:
    _write(tmp_path / "m.csv", b"id,when\n7,x\n")
    with pytest.raises(SourceError, match="needs the column raw or some of subject"):
        _unlabelled(tmp_path / "m.csv")
    with pytest.raises(SourceError, match=r"is no mbox file: it does not begin with a line 'From"):
        _unlabelled(_write(tmp_path / "a.eml"))


def test_labels_that_are_not_wanted_make_another_fingerprint(tmp_path: Path) -> None:
    for name in ("ham/a", "spam/b"):
        _write(tmp_path / name)
    assert _open(tmp_path).fingerprint != _unlabelled(tmp_path).fingerprint
