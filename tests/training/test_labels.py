"""Labels: spelled, coded and told apart, one of them or several."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.config import resolve
from training.labels import MOST, Labels
from training.readers import read
from training.schema import ConfigError
from training.sources import open_source

ONE = Labels(("ham", "spam"))
SEVERAL = Labels(("work", "urgent", "private"), multi=True)


def test_one_label_is_its_index() -> None:
    codes = ONE.codes(pa.chunked_array([["spam", None], ["ham", "Spam", "ham|spam"]]))
    assert codes.dtype == np.int32
    assert codes.tolist() == [1, -1, 0, -1, -1]
    assert ONE.truth(codes[:1]).tolist() == [1]
    assert ONE.indicator(codes).tolist()[:3] == [[False, True], [False, False], [True, False]]
    assert ONE.spell(ONE.guess(np.array([[0.4, 0.6], [0.7, 0.3]]))) == ["spam", "ham"]


def test_several_labels_are_bits_whatever_their_order() -> None:
    spellings = ["urgent|work", "", None, "private", "work | urgent|work", "work|other"]
    codes = SEVERAL.codes(pa.chunked_array([spellings]))
    assert codes.tolist() == [3, 0, -1, 4, 3, -1]
    assert SEVERAL.spell(SEVERAL.truth(codes[[0, 1, 3]])) == ["work|urgent", "", "private"]
    assert SEVERAL.spell(SEVERAL.guess(np.array([[0.5, 0.49, 0.9]]))) == ["work|private"]


def test_as_many_labels_as_there_are_bits() -> None:
    names = tuple(f"l{i}" for i in range(MOST))
    labels = Labels(names, multi=True)
    codes = labels.codes(pa.chunked_array([["|".join(names), names[-1]]]))
    assert codes.tolist() == [2**MOST - 1, 2 ** (MOST - 1)]
    assert labels.indicator(codes).sum(1).tolist() == [MOST, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.labels": "[a, b]"}, "model.head: data.multi_label needs sigmoid, got softmax"),
        ({"data.labels": "['a|b', c]", "model.head": "sigmoid"}, "contain |, got 'a|b'"),
        ({"data.labels": "['', c]", "model.head": "sigmoid"}, "no name may be empty"),
        ({"data.labels": str(list("abcdefghijklmnopqrstuvwxyzABCDEF"))}, "at most 31"),
    ],
)
def test_labels_that_cannot_be_are_refused(settings: dict[str, str], said: str) -> None:
    given = [f"{key}={value}" for key, value in settings.items()]
    with pytest.raises(ConfigError) as refused:
        resolve(recipe="smoke", overrides=["data.multi_label=true", *given])
    assert said in str(refused.value)


def _rows(file: Path, labels: Labels) -> list[dict[str, Any]]:
    source = open_source(str(file), labels, Path("nowhere"))
    return [row for piece in source.pieces for rows in read(piece) for row in rows]


def test_jsonl_parquet_and_csv_give_several_labels_alike(tmp_path: Path) -> None:
    given = [["urgent", "work"], [], ["private"], ["work", "other"]]
    expected = ["work|urgent", "", "private", "work|other"]
    texts = [f"mail {i}" for i in range(len(given))]
    jsonl, parquet, csv = (tmp_path / f"mails.{kind}" for kind in ("jsonl", "parquet", "csv"))
    mails = [{"label": label, "text": text} for label, text in zip(given, texts, strict=True)]
    jsonl.write_text("".join(json.dumps(mail) + "\n" for mail in mails))
    pq.write_table(pa.table({"label": given, "text": texts}), parquet)
    lines = ["|".join(label) + f",{text}" for label, text in zip(given, texts, strict=True)]
    csv.write_text("label,text\n" + "\n".join(lines) + "\n")
    for file in (jsonl, parquet, csv):
        rows = _rows(file, SEVERAL)
        assert [row["label"] for row in rows] == expected
        assert [row["error"] for row in rows[:3]] == [None] * 3
        assert rows[3]["error"] == "label 'other' is not one of work, urgent, private"


def test_a_list_is_no_label_where_a_mail_has_one(tmp_path: Path) -> None:
    file = tmp_path / "mails.jsonl"
    mails = [{"label": label, "text": "x"} for label in (["ham"], ["ham", "spam"], None)]
    file.write_text("".join(json.dumps(mail) + "\n" for mail in mails))
    rows = _rows(file, ONE)
    assert (rows[0]["label"], rows[0]["error"]) == ("ham", None)
    assert rows[1]["error"] == "2 labels; for several set data.multi_label=true"
    assert rows[2]["error"] == "label '' is not one of ham, spam"


def test_a_source_is_another_once_its_mails_may_have_several_labels(tmp_path: Path) -> None:
    file = tmp_path / "mails.csv"
    file.write_text("label,text\nwork,x\n")
    several = open_source(str(file), SEVERAL, Path("nowhere"))
    assert open_source(str(file), Labels(SEVERAL.names), Path("nowhere")) != several
