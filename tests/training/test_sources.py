"""Sources: what opening one finds, and what it says of what it cannot use."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from training import corpus
from training.labels import Labels
from training.readers import read
from training.sources import COLUMNS, READ_MAILS, Source, SourceError, open_source

LABELS = ("ham", "spam")
MAIL = b"Subject: x\r\n\r\nhello\r\n"


def _open(name: Path | str, labels: tuple[str, ...] = LABELS, multi: bool = False) -> Source:
    return open_source(str(name), Labels(labels, multi), Path("nowhere"))


def _rows(source: Source) -> list[dict[str, Any]]:
    batches = [rows for piece in source.pieces for rows in read(piece)]
    assert all(len(rows) <= READ_MAILS for rows in batches)
    assert all(tuple(row) == COLUMNS for rows in batches for row in rows)
    return [row for rows in batches for row in rows]


def _write(file: Path, content: bytes = MAIL) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


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


def test_a_changed_line_of_a_table_changes_the_fingerprint(tmp_path: Path) -> None:
    file = _write(tmp_path / "m.csv", b"label,body\nham,x\n")
    os.utime(file, ns=(0, 0))
    before = _open(file).fingerprint
    assert _open(file).fingerprint == before
    _write(file, b"label,body\nham,y\n")
    os.utime(file, ns=(0, 0))
    assert _open(file).fingerprint != before


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


def test_two_labels_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "ham/a")
    (tmp_path / "spam").symlink_to(tmp_path / "ham")
    with pytest.raises(SourceError, match="ham and spam are the same folder"):
        _open(tmp_path)
    with pytest.raises(SourceError, match="is named twice"):
        _open(f"spam={tmp_path}/spam,ham={tmp_path}/ham")


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"junk a\nSPAM b\nham c\n", "has labels SPAM, junk; data.labels allows ham, spam"),
        (b"ham a\nspam\n", "line 2: a label and a path are needed"),
        (b"\n", "has no mails"),
    ],
)
def test_a_faulty_index_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        _open(_write(tmp_path / "trec.index", content))


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


def test_a_table_in_several_files_is_one_source(tmp_path: Path) -> None:
    for name in ("0.csv", "1.csv"):
        _write(tmp_path / name, b"label,body\nham,x\n")
    assert [row["id"] for row in _rows(_open(tmp_path))] == ["0.csv:0", "1.csv:0"]


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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", b"subject,body\nHi,x\n", "needs the column label.*it has subject, body"),
        ("m.csv", b"label,other\nspam,x\n", "some of subject, from, body"),
        ("m.csv", b"label,body,Body\nspam,x,y\n", "has the column body twice"),
        ("m.csv", b"label,body\n", "has no mails"),
        ("m.csv", b"", "has no mails: it is empty"),
        ("m.csv", "label,body\nham,x\n".encode("utf-16"), "is not UTF-8"),
        ("m.tsv", b"label,body\nham,x\n", "needs the column label"),
        ("m.jsonl", b"{", r"m\.jsonl: the first lines are no JSON"),
        ("m.jsonl", b"[1]\n", "no JSON object but list"),
        ("m.jsonl", b"\n\n", "has no mails"),
        ("m.jsonl", b'{"label": 1}\n', "needs the column label, and raw or some of"),
        ("m.parquet", b"PAR1 no", "is no Parquet file that can be read"),
        ("m.txt", b"x", "is no kind of file that can be read; allowed are spamassassin"),
        ("m.mbox", b"From a\n", "does not say its label; write spam="),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(SourceError, match=said) as error:
        _open(_write(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing/here", "no folder or file here; allowed are"),
        ("spam=nothing.mbox", r"nothing\.mbox is no folder or mbox file here"),
        ("junk=x.mbox,ham=y.mbox", "has labels junk; data.labels allows ham, spam"),
        ("ftp://host/x", "cannot be used.*s3://, gs:// and hdfs:// are allowed"),
        ("synthetic:0", "has no mails"),
        ("hf:/no/such", "hf:/no/such cannot be loaded"),
        ("spamassassin", "mailray data fetch spamassassin"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_is_allowed(name: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as error:
        _open(name)
    assert "\n" not in str(error.value)


def test_a_folder_says_which_labels_it_has_and_which_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a sub-folder for each label: ham, spam$"):
        _open(tmp_path)
    (tmp_path / "Spam").mkdir()
    with pytest.raises(SourceError, match="label: ham, spam; it has Spam"):
        _open(tmp_path)
    (tmp_path / "ham").mkdir()
    with pytest.raises(SourceError, match=r"has labels Spam; data\.labels allows ham, spam"):
        _open(tmp_path)
    (tmp_path / "Spam").rmdir()
    with pytest.raises(SourceError, match="has no mails"):
        _open(tmp_path)


def test_a_folder_that_is_no_mbox_or_an_mbox_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no mbox file: it does not begin with"):
        _open(f"ham={_write(tmp_path / 'a.mbox', b'Subject: x')}")
    with pytest.raises(SourceError, match="has no mails"):
        _open(f"ham={_write(tmp_path / 'b.mbox', b'')}")


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
