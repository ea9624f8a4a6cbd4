"""Sources: the rows they give, and what they say of what they cannot use."""

import json
import os
from pathlib import Path

import pytest

from training.sources import Source, SourceError, open_source

LABELS = ("ham", "spam")


def _open(name: Path | str, labels: tuple[str, ...] = LABELS) -> Source:
    return open_source(str(name), labels, Path("nowhere"))


def test_sub_folders_are_the_labels(tmp_path: Path) -> None:
    for place in ("ham/2020", "spam"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.eml").write_bytes(b"Subject: x\r\n\r\n")
    (tmp_path / "ham" / ".hidden").write_bytes(b"")
    rows = _open(tmp_path).parts[0].to_pylist()
    assert [(row["id"], row["label"], row["group"]) for row in rows] == [
        ("ham/2020/a.eml", "ham", "ham/2020"),
        ("spam/a.eml", "spam", "spam"),
    ]


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    for label in LABELS:
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.eml").write_bytes(b"Subject: x\r\n\r\n")
    before = _open(tmp_path).fingerprint
    assert _open(tmp_path).fingerprint == before
    os.utime(tmp_path / "ham" / "a.eml", ns=(0, 1))
    assert _open(tmp_path).fingerprint != before


def test_csv_fields_become_mail_text(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text('label,subject,body\nspam,Hi,"buy,\nnow"\nham,Re,ok\n')
    rows = _open(file).parts[0].to_pylist()
    assert rows[0]["text"].split() == ["subject:", "Hi", "from:", "buy,", "now"]
    assert [row["id"] for row in rows] == ["m.csv:0", "m.csv:1"]


def test_jsonl_raw_messages_keep_their_ids(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    lines = [{"id": "one", "label": "ham", "raw": "Subject: ü\r\n\r\nhello"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    row = _open(file).parts[0].to_pylist()[0]
    assert (row["id"], row["raw"]) == ("one", "Subject: ü\r\n\r\nhello".encode())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", "subject,body\nHi,x\n", "needs the column label.*it has subject, body"),
        ("m.csv", "label,other\nspam,x\n", "some of subject, from, body"),
        ("m.csv", "label,body\njunk,x\n", "has labels junk; data.labels allows ham, spam"),
        ("m.csv", "label,body\n", "has no mails"),
        ("m.csv", "", "Empty CSV file"),
        ("m.jsonl", "{", r"m\.jsonl"),
        ("m.txt", "x", r"a \.csv, \.jsonl or \.ndjson file is needed"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=said) as error:
        _open(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_folder_without_labels_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a sub-folder for each label: ham, spam"):
        _open(tmp_path)


def test_an_unfetched_corpus_says_how_to_fetch_it() -> None:
    with pytest.raises(SourceError, match="mailray data fetch spamassassin"):
        _open("spamassassin")


def test_synthetic_mails_are_the_same_each_time() -> None:
    assert _open("synthetic:30").fingerprint == _open("synthetic:30").fingerprint
    assert _open("synthetic:30").mails == 30
