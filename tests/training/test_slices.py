"""Slices: what kind each mail is, figures of each kind, and the worst kind first."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.config import DataConfig
from training.details import COLUMNS, details, language, of_mail
from training.evaluation import Scored
from training.home import Home
from training.labels import Labels
from training.mail import DEFAULT_OPTIONS, parse
from training.operating import OperatingPoint
from training.originals import mail_of
from training.slices import MOST, SMALL, slices
from training.sources import SourceError
from training.stages import Quiet

ENGLISH = "The minutes of the meeting are attached, please read them before you come on Friday. "
PAGE = (
    b"From: Shop <a@gmail.com>\r\nDate: Mon, 2 Sep 2002 10:00:00 +0200\r\nContent-Type: text/html"
    b"\r\n\r\n<p>" + ENGLISH.encode() + b"<a href='http://a.example/'>one</a>"
    b"<a href='http://b.example/'>two</a><a href='http://c.example/'>three</a></p>"
)
BOTH = (
    b"From: b@example.com\r\nReply-To: c@other.example\r\nContent-Type: multipart/mixed; "
    b"boundary=m\r\n\r\n--m\r\nContent-Type: text/plain\r\n\r\nSee http://a.example/ now\r\n--m\r\n"
    b"Content-Type: text/html\r\n\r\n<p>See it now</p>\r\n--m\r\nContent-Type: application/zip; "
    b"name=a.zip\r\n\r\nUEs=\r\n--m--\r\n"
)


def _told(raw: bytes) -> dict[str, str]:
    return of_mail(parse(raw), raw, None)


def test_a_mail_tells_what_kind_it_is() -> None:
    assert _told(PAGE) == {
        "length": "under 500 characters", "language": "en", "format": "HTML only",
        "attachments": "none", "links": "3 and more", "sender": "free mail", "month": "2002-09",
    }  # fmt: skip
    both = _told(BOTH)
    assert (both["format"], both["attachments"], both["links"]) == (
        "HTML and plain", "some", "1 or 2",
    )  # fmt: skip
    assert (both["sender"], both["month"], both["language"]) == (
        "answers go to another domain", "unknown", "unknown",
    )  # fmt: skip
    bare = _told(b"Subject: x\r\n\r\n" + b"word " * 2_000)
    assert (bare["format"], bare["sender"]) == ("plain", "no address")
    assert (bare["length"], bare["links"]) == ("8,000 characters and more", "none")


def test_bare_text_tells_what_it_can() -> None:
    text = "subject: Prize\nfrom: Bo <bo@Mail.RU>\n\nsee http://a.example"
    told = of_mail(mail_of(None, text, DEFAULT_OPTIONS), None, 1_030_953_600)
    assert (told["sender"], told["month"]) == ("free mail", "2002-09")
    assert (told["format"], told["attachments"], told["links"]) == ("unknown",) * 3


@pytest.mark.parametrize(
    ("sender", "kind"),
    [
        ("a@yahoo.co.uk", "free mail"),
        ("a@[10.1.2.3]", "odd domain"),
        ("a@win888.example", "odd domain"),
        ("a@localhost", "odd domain"),
        ("a@lists.example.com", "other domain"),
        ("nobody", "no address"),
    ],
)
def test_a_sender_is_of_one_kind(sender: str, kind: str) -> None:
    assert _told(f"From: {sender}\r\n\r\nhello".encode())["sender"] == kind


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"),
        ("Die Niederschrift der Sitzung liegt bei, bitte lest sie vor dem Freitag.", "de"),
        ("Le compte rendu de la réunion est joint, merci de le lire avant vendredi.", "fr"),
        ("会議の議事録を添付しましたので、金曜日にお越しになる前に必ずお読みください。", "ja"),
        ("ok, see you", "unknown"),
        ("http://a.example/" + "abc" * 50 + " 0123456789" * 20, "unknown"),
    ],
)  # fmt: skip
def test_the_language_of_prose_is_named(text: str, code: str) -> None:
    assert language(text) == code


@pytest.mark.usefixtures("ray_session")
def test_details_stand_in_the_order_of_the_ids(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "mails.csv"
    file.write_text(
        "id,label,group,from,body,date\na,ham,desk,x@gmx.de,Hello,2002-08-01\n"
        "b,spam,web,,Win,\nb,spam,web,y@gmx.de,Again,2003-01-01\n"
    )
    data = DataConfig(source=str(file))
    found = details(data, Home(home), ["b", "b", "a"], Quiet())
    assert found["id"].to_pylist() == ["b", "b", "a"]
    assert found["group"].to_pylist() == ["web", "web", "desk"]
    assert found["month"].to_pylist() == ["unknown", "2003-01", "2002-08"]
    assert found["source"].to_pylist() == [str(file)] * 3
    with pytest.raises(SourceError, match="1 of 2 mails are not there any more, such as c"):
        details(data, Home(home), ["a", "c"], Quiet())


@pytest.mark.usefixtures("ray_session")
def test_each_place_that_is_named_is_a_source_of_its_own(home: Path, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.eml").write_bytes(PAGE)
    data = DataConfig(source=f"ham={tmp_path / 'good'},spam={tmp_path / 'bad'}")
    found = details(data, Home(home), ["ham/good/1.eml", "spam/bad/1.eml"], Quiet())
    assert found["source"].to_pylist() == ["ham/good", "spam/bad"]
    assert found["format"].to_pylist() == ["HTML only"] * 2


def _scored(truth: list[int], spam: list[float]) -> Scored:
    scores = np.array(spam, np.float32)
    ids = [str(number) for number in range(len(truth))]
    return Scored(Labels(("ham", "spam")), ids, np.array(truth), np.stack([1 - scores, scores], 1))


def _table(**columns: list[str]) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({name: columns.get(name, ["same"] * count) for name in COLUMNS})


def test_a_slice_has_the_figures_of_its_mails_alone() -> None:
    scored = _scored([0] * 30 + [1] * 20, [0.1] * 27 + [0.8] * 3 + [0.9] * 18 + [0.2] * 2)
    kinds = ["plain"] * 25 + ["HTML only"] * 25
    point = OperatingPoint("lenient", 0.01, 0.85, 299, 400)
    rows = slices(scored, _table(format=kinds), [point])
    assert [(row["by"], row["slice"]) for row in rows] == [
        ("format", "HTML only"), ("format", "plain"),
    ]  # fmt: skip
    page, plain = rows
    assert (page["mails"], page["no"], page["yes"], page["wrong"]) == (25, 5, 20, 5)
    assert (page["accuracy"], page["recall"], page["false_positive_rate"]) == (0.8, 0.9, 0.6)
    low, high = page["intervals"]["recall"]
    assert low == pytest.approx(0.6830, abs=1e-4)  # Clopper and Pearson of 18 of 20
    assert high == pytest.approx(0.9877, abs=1e-4)
    assert page["points"][0]["false"] == 0
    assert page["points"][0]["recall"] == 0.9
    assert math.isnan(plain["recall"])
    assert math.isnan(plain["intervals"]["recall"][0])


def test_the_worst_slice_is_bad_beyond_doubt_and_small_ones_stand_last() -> None:
    few, many, fine = 2, 300, 600
    languages = ["xx"] * few + ["de"] * many + ["en"] * fine
    wrong = [1] * few + [1] * 50 + [0] * (many - 50) + [0] * fine
    rows = slices(
        _scored([0] * len(wrong), [0.9 * bad for bad in wrong]), _table(language=languages)
    )
    assert [row["slice"] for row in rows] == ["de", "en", "xx"]
    assert [row["small"] for row in rows] == [False, False, True]
    assert few < SMALL


def test_rare_values_of_a_detail_are_one_slice() -> None:
    groups = [f"g{number:03d}" for number in range(MOST + 10)] + ["g000"]
    rows = slices(_scored([0] * len(groups), [0.1] * len(groups)), _table(group=groups))
    assert len(rows) == MOST
    assert {row["slice"]: row["mails"] for row in rows}["11 others"] == 11
    assert sum(row["mails"] for row in rows) == len(groups)


def test_more_labels_have_accuracy_alone() -> None:
    kinds = _table(links=["none", "none", "1 or 2"])
    one = Scored(Labels(("a", "b", "c")), ["1", "2", "3"], np.array([0, 1, 2]),
                 np.eye(3, dtype=np.float32)[[0, 2, 2]])  # fmt: skip
    several = Scored(Labels(("a", "b"), multi=True), ["1", "2", "3"],
                     np.array([[True, True], [False, False], [True, False]]),
                     np.array([[0.9, 0.9], [0.9, 0.1], [0.9, 0.1]], np.float32))  # fmt: skip
    for scored in (one, several):
        rows = {row["slice"]: row for row in slices(scored, kinds)}
        assert (rows["none"]["accuracy"], rows["1 or 2"]["accuracy"]) == (0.5, 1.0)
        assert "recall" not in rows["none"]
        assert set(rows["none"]["intervals"]) == {"accuracy"}


def test_what_all_mails_share_makes_no_slice() -> None:
    assert slices(_scored([0, 1], [0.1, 0.9]), _table(links=["none", "none"])) == []


def test_a_date_in_other_units_than_seconds_has_no_month() -> None:
    mail = parse(b"Subject: x\r\n\r\nHi")
    assert of_mail(mail, None, 1_700_000_000_000_000)["month"] == "unknown"
    assert of_mail(mail, None, 1_700_000_000)["month"] == "2023-11"
