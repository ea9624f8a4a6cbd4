"""Mail text: what is kept, what is refused, and that nothing else ever fails."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.mail import MAX_BODY_CHARS, MAX_MAIL_BYTES, MailError, mail_text


def test_subject_sender_and_body_are_the_text() -> None:
    raw = b"From: Ada <ada@example.com>\r\nSubject: Lunch\r\n\r\nAt   noon?\r\n\r\n\r\nAda\r\n"
    assert mail_text(raw) == "subject: Lunch\nfrom: Ada <ada@example.com>\n\nAt noon?\nAda"


def test_encoded_words_and_charsets_are_decoded() -> None:
    raw = (
        b"Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\nFrom: a@example.com\r\n"
        b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdfe"
    )
    assert mail_text(raw) == "subject: Grüße\nfrom: <a@example.com>\n\nGrüße"


def test_html_is_read_as_text_without_its_scripts() -> None:
    raw = (
        b"Subject: x\r\nContent-Type: text/html\r\n\r\n<html><head><title>t</title></head>"
        b"<body><p>Buy <b>now</b></p><script>alert(1)</script></body></html>"
    )
    text = mail_text(raw)
    assert "Buy now" in text
    assert "alert" not in text


def test_the_plain_part_stands_for_its_html_alternative() -> None:
    raw = (
        b"Subject: x\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nplain words\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>html words</p>\r\n--b--\r\n"
    )
    assert "plain words" in mail_text(raw)
    assert "html words" not in mail_text(raw)


def test_broken_base64_still_gives_a_text() -> None:
    body = base64.b64encode(b"hello there, general").decode()[:-3] + "*?!"
    raw = (
        f"Subject: kept\r\nFrom: a@example.com\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}"
    ).encode()
    assert mail_text(raw).startswith("subject: kept")


def test_a_mail_without_a_body_has_a_text() -> None:
    assert mail_text(b"Subject: only this\r\n\r\n").split() == ["subject:", "only", "this", "from:"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b" \r\n\t ", "empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "a JPEG image, not a mail"),
        (b"\x00\x01\x02" * 50, "binary data"),
        (b"Subject: x\r\n\r\n" + b"a" * MAX_MAIL_BYTES, "the limit is"),
    ],
    ids=["empty", "blank", "jpeg", "binary", "large"],
)
def test_what_is_no_mail_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(MailError, match=said):
        mail_text(raw)


def test_the_text_of_a_long_mail_is_bounded() -> None:
    text = mail_text(b"Subject: " + b"s" * 100_000 + b"\r\n\r\n" + b"word " * 1_000_000)
    assert len(text) < MAX_BODY_CHARS + 3_000


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=2_000))
def test_random_bytes_give_a_text_or_a_mail_error(raw: bytes) -> None:
    for candidate in (
        raw,
        b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + raw,
    ):
        try:
            text = mail_text(candidate)
        except MailError:
            continue
        text.encode("utf-8")  # no surrogate is left
        assert "\x00" not in text
