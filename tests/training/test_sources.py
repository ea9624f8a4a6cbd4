"""Sources: what opening one finds, of folders, indexes and mboxes, here or in an object store."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from tests.training.opened import LABELS, MAIL
from tests.training.opened import opened as _open
from tests.training.opened import rows_of as _rows
from tests.training.opened import written as _write
from training import corpus
from training.labels import Labels
from training.sources import READ_MAILS, SourceError, open_source


def test_sub_folders_are_the_labels(tmp_path: Path) -> None:
    for name in ("ham/2020/a.eml", "spam/a.eml", "ham/.hidden", "ham/.git/x"):
        _write(tmp_path / name)
    source = _open(tmp_path)
    assert source.mails == 2
    assert [(r["id"], r["label"], r["group"], r["raw"]) for r in _rows(source)] == [
        ("ham/2020/a.eml", "ham", "ham/2020", MAIL),
        ("spam/a.eml", "spam", "spam", MAIL),
    ]


def test_any_label_names_will_do(tmp_path: Path) -> None:
    for label in ("news", "work", "übrig"):
        _write(tmp_path / label / "a")
    rows = _rows(_open(tmp_path, ("work", "news", "übrig")))
    assert [row["label"] for row in rows] == ["work", "news", "übrig"]


@pytest.mark.parametrize("change", ["time", "more", "less", "label"])
def test_any_change_of_the_files_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    for name in ("ham/a", "ham/b", "spam/a"):
        _write(tmp_path / name)
    before = _open(tmp_path).fingerprint
    assert _open(tmp_path).fingerprint == before
    if change == "time":
        os.utime(tmp_path / "ham/a", ns=(0, 1))
    elif change == "more":
        _write(tmp_path / "spam/b")
    elif change == "less":
        (tmp_path / "ham/b").unlink()
    else:
        (tmp_path / "ham/b").rename(tmp_path / "spam/b")
    assert _open(tmp_path).fingerprint != before


def test_a_folder_is_cut_by_mails_and_by_bytes(tmp_path: Path) -> None:
    for number in range(READ_MAILS + 1):
        _write(tmp_path / "ham" / f"{number:05d}", b"")
    for name in "abc":
        with _write(tmp_path / "spam" / name).open("wb") as file:
            file.truncate(10 << 20)
    assert [len(piece.paths) for piece in _open(tmp_path).pieces] == [READ_MAILS, 2, 1, 1]


def test_a_symlink_loop_gives_every_mail_once(tmp_path: Path) -> None:
    _write(tmp_path / "ham/a")
    _write(tmp_path / "spam/b")
    (tmp_path / "ham/again").symlink_to(tmp_path / "ham")
    (tmp_path / "ham/root").symlink_to(tmp_path)
    (tmp_path / "ham/self").symlink_to(tmp_path / "ham/self")
    rows = _rows(_open(tmp_path))
    assert [row["id"] for row in rows] == ["ham/a", "ham/self", "spam/b"]
    assert "symbolic links" in rows[1]["error"]


def test_file_names_that_are_not_utf_8_can_be_read(tmp_path: Path) -> None:
    _write(tmp_path / "ham" / os.fsdecode(b"m\xfcll.eml"))
    row = _rows(_open(tmp_path))[0]
    assert (row["id"], row["raw"]) == ("ham/m\\xfcll.eml", MAIL)


def test_an_index_file_labels_the_mails_beside_it(tmp_path: Path) -> None:
    _write(tmp_path / "data/inmail.1")
    _write(tmp_path / "data/inmail.2", b"two")
    index = _write(tmp_path / "full/index", b"spam ../data/inmail.1\n\nham ../data/inmail.2\n")
    source = _open(index)
    assert source.mails == 2
    assert [(r["id"], r["label"], r["group"], r["raw"]) for r in _rows(source)] == [
        ("data/inmail.1", "spam", "spam", MAIL),
        ("data/inmail.2", "ham", "ham", b"two"),
    ]
    index.write_bytes(index.read_bytes().replace(b"ham", b"spam"))
    assert _open(index).fingerprint != source.fingerprint


def test_a_maildir_gives_its_mails_without_flags_and_rubbish(tmp_path: Path) -> None:
    for name in ("cur/1.host:2,S", "new/2.host", "tmp/3.host", "dovecot.index", ".Old/cur/4.h:2,"):
        _write(tmp_path / "spam" / name)
    for name in ("new", "tmp"):
        (tmp_path / "spam/.Old" / name).mkdir()
    for source, at in ((_open(tmp_path), "spam"), (_open(f"spam={tmp_path}/spam"), "spam/spam")):
        found = {(row["id"], row["group"]) for row in _rows(source)}
        assert found == {
            (f"{at}/1.host", at),
            (f"{at}/2.host", at),
            (f"{at}/.Old/4.h", f"{at}/.Old"),
        }


def test_labelled_mboxes_and_folders_are_one_source(tmp_path: Path) -> None:
    _write(tmp_path / "a,b.mbox", b"From a\nSubject: 1\n\nx\n\nFrom b\nSubject: 2\n\ny\n")
    _write(tmp_path / "good/sub/c")
    source = _open(f"spam={tmp_path}/a,b.mbox,ham={tmp_path}/good")
    assert source.mails is None
    assert [(r["id"], r["label"], r["group"], r["raw"]) for r in _rows(source)] == [
        ("spam/a,b.mbox:0", "spam", "spam/a,b.mbox", b"Subject: 1\n\nx\n"),
        ("spam/a,b.mbox:22", "spam", "spam/a,b.mbox", b"Subject: 2\n\ny\n"),
        ("ham/good/sub/c", "ham", "ham/good/sub", MAIL),
    ]


def test_two_mboxes_of_one_name_give_other_ids(tmp_path: Path) -> None:
    for year in ("2001", "2002"):
        _write(tmp_path / year / "in.mbox", b"From a\n\nx\n")
    rows = _rows(_open(f"ham={tmp_path}/2001/in.mbox,ham={tmp_path}/2002/in.mbox"))
    assert len({row["id"] for row in rows}) == 2


@pytest.mark.parametrize("root", ["file://", "fsspec+memory://"])
def test_object_stores_are_read_as_folders_are(tmp_path: Path, root: str) -> None:
    files = {
        "tree/ham/a": MAIL,
        "tree/ham/.hidden": MAIL,
        "tree/spam/cur/1:2,S": MAIL,
        "tree/spam/new/2": MAIL,
        "tree/spam/tmp/3": MAIL,
        "full/index": b"spam ../tree/ham/a\nham ../tree/gone\n",
        "m.jsonl": b'{"label": "ham", "raw": "x"}\n' * 3,
        "m.csv": b"label,body\nham,x\n",
        "m.mbox": b"From a\n\nx\n\nFrom b\n\ny\n",
        "m.parquet": _parquet(pa.table({"label": ["ham"], "raw": [b"x"]})),
    }
    uri = f"{root}{tmp_path}/stored"
    system, base = pa.fs.FileSystem.from_uri(uri)
    for name, content in files.items():
        system.create_dir(f"{base}/{name}".rpartition("/")[0])
        with system.open_output_stream(f"{base}/{name}") as file:
            file.write(content)
    assert [row["id"] for row in _rows(_open(f"{uri}/tree"))] == ["ham/a", "spam/1", "spam/2"]
    indexed = _rows(_open(f"{uri}/full/index"))
    assert [row["id"] for row in indexed] == ["tree/ham/a", "tree/gone"]
    assert [row["raw"] for row in indexed] == [MAIL, None]
    assert indexed[1]["error"]
    assert len(_rows(_open(f"{uri}/m.jsonl"))) == 3
    assert len(_rows(_open(f"{uri}/m.csv"))) == 1
    assert len(_rows(_open(f"{uri}/m.parquet"))) == 1
    assert len(_rows(_open(f"ham={uri}/m.mbox,spam={uri}/tree/spam"))) == 4
    with pytest.raises(SourceError, match="no folder or file here"):
        _open(f"{uri}/nothing")


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def test_the_spamassassin_groups_say_the_labels(tmp_path: Path) -> None:
    for group in corpus.GROUPS:
        _write(tmp_path / "spamassassin" / group / "00001.abc")
    (tmp_path / "spamassassin" / corpus.MANIFEST).write_text("{}")
    rows = _rows(open_source("spamassassin", Labels(LABELS), tmp_path))
    assert [(row["id"].split("/")[0], row["group"], row["label"]) for row in rows] == [
        ("easy-ham-1", "easy-ham-1", "ham"),
        ("easy-ham-2", "easy-ham-2", "ham"),
        ("hard-ham-1", "hard-ham-1", "ham"),
        ("spam-1", "spam-1", "spam"),
        ("spam-2", "spam-2", "spam"),
    ]


def test_synthetic_mails_are_the_same_each_time() -> None:
    assert _open("synthetic:30").fingerprint == _open("synthetic:30").fingerprint
    assert _open("synthetic:31").fingerprint != _open("synthetic:30").fingerprint
    source = _open(f"synthetic:{READ_MAILS + 5}")
    assert (source.mails, len(source.pieces)) == (READ_MAILS + 5, 2)
    ids = [row["id"] for row in _rows(source)]
    assert ids == [f"synthetic/{number:06d}" for number in range(READ_MAILS + 5)]
