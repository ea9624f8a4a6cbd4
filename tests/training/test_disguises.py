"""Disguises: deterministic, still a mail, nothing else changed, and the clean text recoverable."""

import random
import re
import unicodedata
from collections.abc import Callable

import pytest

from tests.training.test_mail_fuzz import OWN_MAILS, mutated
from training.disguises import DISGUISES, KEPT, disguised
from training.letters import Letter, mail_text_of, opened, sealed
from training.mail import DEFAULT_OPTIONS, MailError, mail_text
from training.stretches import LINK

BODY = (
    "Dear friend,\r\nour pharmacy offers the cheapest tablets without any prescription. Visit\r\n"
    "http://pills.example/buy?x=longparameter or http://pills.example/list, write to\r\n"
    "sales@pills.example today. " + "This offer ends tomorrow evening at seven. " * 10 + "\r\n"
)
PLAIN = b"From: A <a@example.com>\r\nSubject: Cheapest tablets\r\n\r\n" + BODY.encode()
LISTED = PLAIN + b"_______________________________________________\r\nclub mailing list\r\n"
PAGE = (
    b"From: A <a@example.com>\r\nSubject: Cheapest tablets\r\nContent-Type: text/html\r\n\r\n"
    b"<html><head><style>p.longname { color: black }</style></head><body><p class=longname>"
    b"Cheapest&nbsp;tablets <a href='http://pills.example/longname'>here</a><!-- remark -->"
    b"</p></body></html>"
)
BOTH = (
    b"From: A <a@example.com>\r\nSubject: Cheapest tablets\r\nMIME-Version: 1.0\r\nContent-Type: "
    b"multipart/mixed;\r\n boundary=m\r\nContent-Length: 3\r\n\r\n--m\r\nContent-Type: text/plain; "
    b"charset=us-ascii\r\n\r\nCheapest tablets caf\xe9\r\n--m\r\nContent-Type: text/html\r\n\r\n"
    b"<p>Cheapest tablets</p>\r\n--m\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\nx\r\n--m--"
)
WORDS = [name for name in DISGUISES if name in (
    "look-alike letters", "zero-width characters", "split words", "leetspeak",
)]  # fmt: skip
every = pytest.mark.parametrize("name", DISGUISES)


def _open(raw: bytes) -> Letter:
    letter = opened(raw, None, DEFAULT_OPTIONS)
    assert letter is not None
    return letter


def _under(name: str, raw: bytes, id_: str = "1") -> str:
    return mail_text(sealed(disguised(name, _open(raw), id_)))


def _body(text: str) -> str:
    return text.partition("\n\n")[2]


@pytest.mark.parametrize("raw", [PLAIN, LISTED, PAGE, BOTH, *OWN_MAILS])
def test_a_letter_put_together_again_has_the_same_mail_text(raw: bytes) -> None:
    assert mail_text(sealed(_open(raw))) == mail_text(raw)


@every
@pytest.mark.parametrize("raw", [PLAIN, PAGE, BOTH])
def test_a_disguise_changes_the_text_and_leaves_the_sender(name: str, raw: bytes) -> None:
    if name == "truncation" and raw is not PLAIN:
        pytest.skip("shorter than what it leaves")
    if name == "short links" and raw is BOTH:
        pytest.skip("has no link")
    clean, text = mail_text(raw), _under(name, raw)
    assert text != clean
    assert text.split("\n")[1] == clean.split("\n")[1] == "from: A <a@example.com>"


@every
def test_a_disguise_is_the_same_for_the_same_mail_and_id(name: str) -> None:
    letter = _open(BOTH)
    assert sealed(disguised(name, letter, "x/1")) == sealed(disguised(name, letter, "x/1"))
    assert letter == _open(BOTH), "the letter itself is left alone"


def test_another_id_is_disguised_otherwise() -> None:
    for name in (*WORDS, "HTML comments", "hidden text", "good words", "short links"):
        assert len({_under(name, PLAIN, str(number)) for number in range(5)}) > 1, name


@every
def test_links_and_addresses_lead_where_they_led(name: str) -> None:
    body = _body(_under(name, PLAIN))
    links = LINK.findall(body)
    if name == "short links":
        assert len(links) == 2
        assert "pills.example/" not in body
        assert len(set(links)) == 2
        assert all(len(link) < 30 for link in links)
    elif name == "truncation":
        assert len(body) <= KEPT
    elif name != "image only":
        assert links == ["http://pills.example/buy?x=longparameter", "http://pills.example/list,"]
        assert "sales@pills.example" in body


@every
def test_what_html_says_to_a_program_stays(name: str) -> None:
    letter = disguised(name, _open(PAGE), "1")
    source = next(part.text for part in letter.parts if part.kind == "text/html")
    if name != "image only":
        assert source is not None
        for fixed in ("p.longname { color: black }", "<p class=longname>", "&nbsp;", "<!-- remark"):
            assert fixed in source
        assert ("http://pills.example/longname" in source) == (name != "short links")


_FOLDED = str.maketrans(
    "\u0430\u0441\u0435\u0456\u043e\u0440\u0445\u0443\u0458\u0421\u0422", "aceiopxyjCT"
)
RECOVERED: dict[str, Callable[[str], str]] = {
    "look-alike letters": lambda text: text.translate(_FOLDED),
    "zero-width characters": lambda text: re.sub("[\u200b\u200c\u2060\u00ad]", "", text),
    "HTML comments": lambda text: re.sub("<!-- .{6} -->", "", text),
    "good words": lambda text: text[: len(_source(PLAIN))],
    "disclaimer": lambda text: text[: len(_source(PLAIN))],
}  # fmt: skip


def _source(raw: bytes) -> str:
    return _open(raw).parts[0].text or ""


@pytest.mark.parametrize("name", RECOVERED)
def test_the_clean_text_can_be_recovered(name: str) -> None:
    text = disguised(name, _open(PLAIN), "1").parts[0].text or ""
    if name == "HTML comments":
        text = re.sub("</?(html|body)>", "", text).replace("<br>\n", "\n")
    assert text != _source(PLAIN)
    assert RECOVERED[name](text) == _source(PLAIN)


def test_about_half_of_the_longer_words_are_misspelled() -> None:
    words = " ".join(["tablets"] * 1_000 + ["now"] * 100)
    for name in WORDS:
        text = _source(sealed(disguised(name, _open(b"Subject: x\n\n" + words.encode()), "1")))
        assert 400 < text.count("tablets") < 600, name
        assert text.count("now") == 100


def test_case_is_changed_and_nothing_else() -> None:
    clean = _body(mail_text(PLAIN))
    assert _body(_under("lower case", PLAIN)).lower() == clean.lower()
    assert _body(_under("upper case", PLAIN)).lower() == clean.lower()
    assert "THE CHEAPEST TABLETS" in _under("upper case", PLAIN)
    assert "subject: CHEAPEST TABLETS" in _under("upper case", BOTH)


def test_the_subject_stays_but_where_words_are_misspelled() -> None:
    for name in DISGUISES:
        subjects = {_under(name, PLAIN, str(n)).split("\n")[0] for n in range(8)}
        same = subjects == {"subject: Cheapest tablets"}
        assert same == (name not in (*WORDS, "upper case", "lower case")), name


def test_mail_text_names_the_tricks_that_it_knows() -> None:
    told = {name: _under(name, PLAIN).split("\n")[2] for name in DISGUISES}
    assert told["look-alike letters"].startswith("tricks: mixed ")
    assert told["zero-width characters"].startswith("tricks: zw ")
    assert told["HTML comments"].startswith("tricks: split ")
    assert told["hidden text"] == "tricks: hidden 2"


def test_an_image_only_mail_has_no_word_but_its_subject() -> None:
    head, _, body = _under("image only", BOTH).partition("\n\n")
    assert body == ""
    assert "format: html only, 1 image" in head
    assert "a.pdf application/pdf" in head


def test_what_is_appended_stands_above_a_list_footer() -> None:
    assert mail_text(LISTED) == mail_text(PLAIN)
    for name in ("good words", "disclaimer"):
        assert _under(name, LISTED) == _under(name, PLAIN)


def test_a_subject_in_other_letters_is_read_again() -> None:
    raw = b"Subject: =?utf-8?Q?Caf=C3=A9_tonight?=\r\n\r\nhello\r\n"
    letter = _open(raw).entitled("\u0421\u0430f\u00e9 " + "x" * 90)
    line = mail_text(sealed(letter)).split("\n")[0]
    assert unicodedata.name(line[len("subject: [mixed] ")]) == "CYRILLIC CAPITAL LETTER ES"
    assert line.endswith("x" * 90)


def test_a_mail_that_came_as_text_is_disguised_as_well() -> None:
    text = "subject: Cheapest tablets\nfrom: A <a@example.com>\n\nOur pharmacy offers tablets"
    letter = opened(None, text, DEFAULT_OPTIONS)
    assert letter is not None
    assert mail_text_of(letter, DEFAULT_OPTIONS) == text
    found = mail_text_of(disguised("HTML comments", letter, "5"), DEFAULT_OPTIONS)
    assert found.startswith("subject: Cheapest tablets\nfrom: A <a@example.com>\ntricks: split")
    assert _body(found).replace("[split] ", "") == _body(text)


@every
def test_broken_mails_are_disguised_or_left_alone(name: str) -> None:
    rng = random.Random(7)
    taken = 0
    for number in range(150):
        raw = mutated(rng, OWN_MAILS)
        try:
            letter = opened(raw, None, DEFAULT_OPTIONS)
        except MailError:
            continue
        if letter is not None:
            mail_text(sealed(disguised(name, letter, str(number)))).encode("utf-8")
            taken += 1
    assert taken > 120
