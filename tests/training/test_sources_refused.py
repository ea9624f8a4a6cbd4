"""Sources that cannot be used: each says why, and what is allowed instead."""

from pathlib import Path

import pytest

from tests.training.opened import opened as _open
from tests.training.opened import written as _write
from training.sources import SourceError


def test_two_labels_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "ham/a")
    (tmp_path / "spam").symlink_to(tmp_path / "ham")
    with pytest.raises(SourceError, match="ham and spam are the same folder"):
        _open(tmp_path)
    with pytest.raises(SourceError, match="is named twice"):
        _open(f"spam={tmp_path}/spam,ham={tmp_path}/ham")


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
