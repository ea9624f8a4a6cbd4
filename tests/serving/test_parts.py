"""Parts: a directory knows of which model and mails it is, and what it lacks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from serving import parts
from serving.decision import Decision
from tests.serving.references import made, stream
from training.bundle import Bundle
from training.schema import ConfigError
from training.sources import open_source

SCHEMA = parts.schema(("ham", "spam"), multi=False)


def _facts(bundle: Bundle, count: int = 3) -> dict[str, Any]:
    source = open_source(f"synthetic:{count}", None, Path("nowhere"))
    return parts.manifest(bundle, source, Decision.of(bundle), "torch", "auto")


def _write(folder: Path, piece: int, part: int, rows: list[dict[str, Any]], last: bool) -> None:
    parts.write_part(folder, piece, part, pa.Table.from_pylist(rows, SCHEMA), last=last)


def test_a_directory_that_was_begun_is_gone_on_with(bundle: Bundle, tmp_path: Path) -> None:
    facts = _facts(bundle)
    parts.begin(tmp_path / "a/b", facts)
    parts.begin(tmp_path / "a/b", facts | {"source": "the same mails, spelled otherwise"})
    assert json.loads((tmp_path / "a/b" / parts.MANIFEST).read_text())["version"] == "7"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", "8", "begun with version 7; this call has version 8"),
        ("precision", "fp32", "begun with precision auto; this call has precision fp32"),
        ("operating_point", "strict", "this call has operating_point strict"),
        ("weights", "other", "this call has weights other"),
    ],
)
def test_another_model_or_option_is_refused(
    bundle: Bundle, tmp_path: Path, key: str, value: str, said: str
) -> None:
    facts = _facts(bundle)
    parts.begin(tmp_path, facts)
    with pytest.raises(ConfigError, match=said):
        parts.begin(tmp_path, facts | {key: value})


def test_other_and_changed_mails_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    facts = _facts(bundle)
    parts.begin(tmp_path, facts)
    with pytest.raises(ConfigError, match="begun with source synthetic:3; this call has source s"):
        parts.begin(tmp_path, _facts(bundle, 4))
    with pytest.raises(ConfigError, match="the mails of synthetic:3 have changed since"):
        parts.begin(tmp_path, facts | {"fingerprint": "other"})


def test_what_is_no_directory_of_parts_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    for place, said in [("full", "has other things in it"), ("full/thesis.txt", "is a file")]:
        with pytest.raises(ConfigError, match=said):
            parts.begin(tmp_path / place, _facts(bundle))
    (tmp_path / "full" / parts.MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        parts.begin(tmp_path / "full", _facts(bundle))


def test_names_say_what_is_there(tmp_path: Path) -> None:
    for piece, part, last in [
        (0, 0, False),
        (0, 1, True),
        (1, 0, False),
        (2, 1, True),
        (3, 0, True),
    ]:
        _write(tmp_path, piece, part, [{"id": "x"}], last)
    (tmp_path / ".part-000001-00001.parquet-1234").touch()
    found, whole = parts.there(tmp_path)
    assert found == {0: [0, 1], 1: [0], 2: [1], 3: [0]}
    assert whole == {0, 3}, "a piece without its end, or with a hole, is not whole"
    assert parts.mails(tmp_path) == 5


def test_a_summary_is_of_all_parts(bundle: Bundle, tmp_path: Path) -> None:
    ham = {"id": "a", "label": "ham", "unsure": True}
    _write(tmp_path, 0, 0, [ham, {"id": "b", "label": "ham", "unsure": False}], True)
    _write(tmp_path, 1, 0, [{"id": "c", "error": "empty"}, {"id": "d", "error": "odd"}], True)
    _write(tmp_path, 2, 0, [], True)
    half_written = tmp_path / ".part-000001-00001.parquet-1234"
    half_written.touch()
    found = parts.summarize(tmp_path, _facts(bundle), bundle)
    assert found == {"mails": 4, "unsure": 1, "errors": 2, "labels": {"ham": 2, "spam": 0}}
    assert json.loads((tmp_path / parts.SUMMARY).read_text()) == found
    assert parts.first_error(tmp_path) == ("c", "empty")
    assert not half_written.exists()


def test_a_summary_says_how_far_the_mails_are_from_the_reference(
    bundle: Bundle, tmp_path: Path
) -> None:
    known = replace(bundle, reference=made())
    rows = [
        {"id": str(at), "p_ham": scores["ham"], "p_spam": scores["spam"], "tokens": length}
        for at, (scores, length) in enumerate(stream(900, 2, spam=0.7))
    ]
    _write(tmp_path, 0, 0, rows[:400], False)
    _write(tmp_path, 0, 1, [*rows[400:], {"id": "c", "error": "empty"}], True)
    found = parts.summarize(tmp_path, _facts(bundle), known)["drift"]
    assert {quantity: each["state"] for quantity, each in found.items()} == {
        "score": "drift", "length": "steady", "label": "drift",
    }  # fmt: skip
    assert found["label"]["psi"] > 0.5 > found["label"]["chance"]
