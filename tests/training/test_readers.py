"""Readers: every mail of a piece exactly once, and a reason for each that is none."""

import base64
import json
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training.labels import Labels
from training.readers import files, read, tabular
from training.readers.columns import epoch_seconds
from training.readers.piece import READ_BYTES, READ_MAILS, Piece, batches
from training.sources import SourceError, open_source

LABELS = Labels(("ham", "spam"))


def _pieces(name: Path | str) -> tuple[Piece, ...]:
    return open_source(str(name), LABELS, Path("nowhere")).pieces


def _rows(pieces: tuple[Piece, ...] | list[Piece]) -> list[dict[str, Any]]:
    return [row for piece in pieces for rows in read(piece) for row in rows]


def _cut(whole: Piece, step: int) -> list[Piece]:
    return [
        replace(whole, start=start, end=min(start + step, whole.size))
        for start in range(0, whole.size, step)
    ]


_LINES = st.lists(
    st.sampled_from(["", "", "From x", ">From y", ">>From", " From", "From", "é", "word"]),
    max_size=8,
)


@settings(max_examples=100)
@given(
    bodies=st.lists(_LINES, min_size=1, max_size=6),
    step=st.integers(1, 120),
    chunk=st.integers(1, 50),
    crlf=st.booleans(),
)
def test_mbox_ranges_of_any_size_give_every_mail_once(
    bodies: list[list[str]], step: int, chunk: int, crlf: bool
) -> None:
    end = "\r\n" if crlf else "\n"
    mails = ["".join(line + end for line in ("Subject: x", "", *body)) for body in bodies]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder, "m.mbox")
        quoted = (re.sub("^(>*From )", r">\1", mail, flags=re.MULTILINE) for mail in mails)
        file.write_bytes("".join(f"From a@b Mon{end}{mail}{end}" for mail in quoted).encode())
        whole = _pieces(f"ham={file}")[0]
        patch.setattr(files, "_CHUNK", chunk)
        rows = _rows(_cut(whole, step))
    assert [row["raw"].decode() for row in rows] == mails
    assert len({row["id"] for row in rows}) == len(mails)


@settings(max_examples=150)
@given(
    texts=st.lists(st.text(max_size=20), min_size=1, max_size=10),
    step=st.integers(1, 200),
    chunk=st.integers(1, 50),
    blank=st.booleans(),
)
def test_jsonl_ranges_of_any_size_give_every_line_once(
    texts: list[str], step: int, chunk: int, blank: bool
) -> None:
    lines = [
        json.dumps({"id": f"{n}", "label": "ham", "raw": f"x{text}"}, ensure_ascii=False)
        for n, text in enumerate(texts)
        if text.isprintable()
    ] or [json.dumps({"id": "0", "label": "ham", "raw": "x"})]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder, "m.jsonl")
        file.write_bytes(("\n\n" if blank else "\n").join(lines).encode())
        whole = _pieces(file)[0]
        patch.setattr(files, "_CHUNK", chunk)
        rows = _rows(_cut(whole, step))
    assert [(row["id"], row["raw"].decode()) for row in rows] == [
        (value["id"], value["raw"]) for value in map(json.loads, lines)
    ]


@settings(max_examples=150)
@example(suffix="csv", head=b"", noise=b'"\n')
@given(
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet", "mbox"]),
    head=st.sampled_from(
        [b"", b"label,raw\n", b'{"label":"ham","raw":"x"}\n', b"From a\n\n", b"PAR1"]
    ),
    noise=st.binary(max_size=100) | st.text('{}[]",\n\r\0aé', max_size=40).map(str.encode),
)
def test_noise_is_rows_with_reasons_or_one_clear_error(
    suffix: str, head: bytes, noise: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"m.{suffix}")
        file.write_bytes(head + noise)
        fault = ""
        try:
            rows = _rows(_pieces(f"ham={file}" if suffix == "mbox" else file))
        except SourceError as error:
            rows, fault = [], str(error)
    assert "\n" not in fault
    assert all(row["id"] for row in rows)
    assert all((row["error"] is None) == (row["raw"] is not None) for row in rows)


def test_quoted_from_lines_of_an_mbox_lose_one_mark(tmp_path: Path) -> None:
    file = tmp_path / "m.mbox"
    file.write_bytes(b"From a\n\n>From here\n>>From there\n> From x\nFrom inside\n\nFrom b\n\ny\n")
    raws = [row["raw"] for row in _rows(_pieces(f"ham={file}"))]
    assert raws == [b"\nFrom here\n>From there\n> From x\nFrom inside\n", b"\ny\n"]


def test_a_mail_over_the_limit_is_an_error_and_the_next_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_MAIL_BYTES", 3_000)
    monkeypatch.setattr(files, "_CHUNK", 1_000)
    (tmp_path / "ham").mkdir()
    (tmp_path / "ham/large").write_bytes(b"x" * 3_001)
    (tmp_path / "ham/small").write_bytes(b"x" * 3_000)
    mbox = tmp_path / "m.mbox"
    mbox.write_bytes(b"From a\n\n" + b"x" * 9_000 + b"\n\nFrom b\n\ny\n\nFrom c\n" + b"z" * 9_000)
    lines = tmp_path / "m.jsonl"
    good = b'{"label":"ham","raw":"a"}\n'
    lines.write_bytes(good + b'{"x":"' + b"y" * 9_000 + b'"}\n' + good)
    for name, wrong in (
        (tmp_path, [True, False]),
        (f"ham={mbox}", [True, False, True]),
        (lines, [False, True, False]),
    ):
        rows = _rows(_pieces(name))
        assert [(row["error"] or "").startswith("too large") for row in rows] == wrong


def test_files_that_vanish_or_cannot_be_read_are_rows_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "ham").mkdir()
    for name in "ab":
        (tmp_path / "ham" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "ham/pipe")
    (tmp_path / "ham/to_nothing").symlink_to("nothing")
    pieces = _pieces(tmp_path)
    (tmp_path / "ham/a").unlink()
    assert {row["id"]: row["error"] for row in _rows(pieces)} == {
        "ham/a": "cannot be read: No such file or directory",
        "ham/b": None,
        "ham/pipe": "cannot be read: not a regular file",
        "ham/to_nothing": "cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("change", ["longer", "gone"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet", "ham=m.mbox"])
def test_a_table_that_changes_while_it_is_read_stops_the_run(
    tmp_path: Path, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("label,body\nham,x\n")
    Path("m.jsonl").write_text('{"label": "ham", "body": "x"}\n')
    Path("m.mbox").write_text("From a\n\nx\n")
    pq.write_table(pa.table({"label": ["ham"], "body": ["x"]}), "m.parquet")
    pieces = _pieces(name)
    file = Path(name.removeprefix("ham="))
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SourceError, match=r"has changed while it was read|No such file"):
        _rows(pieces)


def test_csv_fields_become_mail_text(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text('\ufefflabel,Subject,body,other\nspam,Hi,"buy,\nnow",1\nham,Re,ok,2\n', "utf-8")
    rows = _rows(_pieces(file))
    assert rows[0]["text"].startswith("subject: Hi\n")
    assert rows[0]["text"].endswith("buy,\nnow")
    assert [(row["id"], row["group"]) for row in rows] == [("m.csv:0", "spam"), ("m.csv:1", "ham")]


def test_tsv_rows_have_all_columns_that_are_known(tmp_path: Path) -> None:
    file = tmp_path / "m.tsv"
    file.write_text("id\tlabel\tgroup\tdate\tsplit\traw\n1\tham\tg\t2020-01-01\tval\tSubject: x\n")
    assert _rows(_pieces(file)) == [
        {
            "id": "1",
            "label": "ham",
            "group": "g",
            "split": "validation",
            "date": 1_577_836_800,
            "raw": b"Subject: x",
            "text": None,
            "error": None,
        }
    ]


def test_rows_that_cannot_be_used_say_why_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(
        b"label,body,split\nham,one,\njunk,two,\nham,caf\xe9,\nham,,\nham,x,later\nham\n,y,\nham,end,test\n"
    )
    assert [(row["id"], row["error"]) for row in _rows(_pieces(file))] == [
        ("m.csv:0", None),
        ("m.csv:1", "label 'junk' is not one of ham, spam"),
        ("m.csv:2", "not UTF-8: byte 0xe9 at 3 of body"),
        ("m.csv:3", "all of its text columns are empty"),
        ("m.csv:4", "split 'later' is not train, validation or test"),
        ("m.csv:5", "1 values, but 3 columns are named"),
        ("m.csv:6", "label '' is not one of ham, spam"),
        ("m.csv:7", None),
    ]


def test_a_raw_column_of_a_csv_keeps_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(b'label,raw\nham,"Subject: caf\xe9\r\n\r\nx"\n')
    assert _rows(_pieces(file))[0]["raw"] == b"Subject: caf\xe9\r\n\r\nx"


def test_a_message_of_any_bytes_comes_as_base64(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    raw = b"Subject: caf\xe9\r\n\r\nx"
    encoded = base64.b64encode(raw).decode()
    given = [encoded, "", "caf*", "caf\u00e9"]
    file.write_text("".join(f'{{"label": "ham", "raw_base64": "{each}"}}\n' for each in given))
    with file.open("a") as lines:
        lines.write('{"label": "ham"}\n')
    good, *bad, none = _rows(_pieces(file))
    assert good["raw"] == raw
    assert none["error"] == "raw is empty"
    assert [row["error"] for row in bad] == [
        "raw_base64 is empty", "raw_base64 is not base64", "raw_base64 is not base64"
    ]  # fmt: skip


def test_an_open_quote_costs_as_much_as_a_mail_may_have_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "MAX_MAIL_BYTES", 10_000)
    file = tmp_path / "m.csv"
    line = b"ham,%s\n" % (b"x" * 990)
    file.write_bytes(b"label,body\n" + line * 50 + b'ham,"open\n' + line * 100)
    rows = _rows(_pieces(file))
    faulty = [row for row in rows if row["error"]]
    assert [(row["id"], row["error"][:9]) for row in faulty] == [("m.csv:50", "too large")]
    assert 135 <= len(rows) <= 145


def test_jsonl_lines_that_are_no_mail_say_why(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"label": "ham", "body": "x\\ud800"}\n'
        b'{"label": "ham"\n'
        b"[1]\n"
        b'{"label": "ham", "body": "\xe9"}\n'
        b'{"label": null, "body": "x"}\n'
        b'{"label": "ham", "raw": "Subject: \xc3\xbc \\udce9"}\n' + b"[" * 50_000
    )
    rows = _rows(_pieces(file))
    said = [row["error"] for row in rows]
    assert said[0] is None
    assert said[1].startswith("no JSON: ")
    assert said[2] == "no JSON object but list; one object a line is needed"
    assert said[3] == "not UTF-8: byte 0xe9 in the line"
    assert said[4] == "label '' is not one of ham, spam"
    assert rows[5]["raw"] == b"Subject: \xc3\xbc \xe9"
    assert said[6].startswith("no JSON: ")
    assert rows[0]["id"] == "m.jsonl:0"


def test_a_broken_parquet_page_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    table = pa.table({"label": ["ham"] * 100, "body": [f"{n} text" * 50 for n in range(100)]})
    pq.write_table(table, file, row_group_size=50, use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[300:400] = b"\xff" * 100
    file.write_bytes(content)
    rows = _rows(_pieces(file))
    assert "cannot be read from row" in rows[-1]["error"]


def test_parquet_values_of_any_type_will_do(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    table = pa.table(
        {
            "ID": [7],
            "label": pa.array(["ham"]).dictionary_encode(),
            "date": pa.array([1_577_836_800_000], pa.timestamp("ms")),
            "Raw": [b"Subject: \xff"],
        }
    )
    pq.write_table(table, file)
    row = _rows(_pieces(file))[0]
    assert (row["id"], row["date"], row["raw"]) == ("7", 1_577_836_800, b"Subject: \xff")


def test_batches_are_cut_by_rows_and_by_bytes() -> None:
    small = [{"id": str(number)} for number in range(READ_MAILS + 1)]
    assert [len(rows) for rows in batches(small)] == [READ_MAILS, 1]
    large = [{"raw": bytes(READ_BYTES // 2)}] * 3
    assert [len(rows) for rows in batches(large)] == [2, 1]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_577_836_800, 1_577_836_800),
        (1_577_836_800_000, 1_577_836_800),
        ("1577836800.5", 1_577_836_800),
        ("2020-01-01T01:00:00+01:00", 1_577_836_800),
        (b"Wed, 01 Jan 2020 00:00:00 -0000", 1_577_836_800),
        ("yesterday", None),
        (b"\xff", None),
        (float("nan"), None),
        ("inf", None),
        (True, None),
        (None, None),
    ],
)
def test_dates_of_many_spellings_are_seconds(value: object, seconds: int | None) -> None:
    assert epoch_seconds(value) == seconds
