"""Mail text: what is kept, what is refused, and that nothing else ever fails."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.mail import (
    MAX_BODY_CHARS,
    MAX_MAIL_BYTES,
    MailError,
    MailTextOptions,
    mail_text,
    parse,
)


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


@settings(max_examples=300)
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


def mail(headers: str = "", body: str = "Hi", subject: str = "x") -> str:
    return mail_text(f"Subject: {subject}\r\nFrom: a@a.example\r\n{headers}\r\n{body}".encode())


def html(source: str, headers: str = "") -> str:
    return mail(f"{headers}Content-Type: text/html; charset=utf-8\r\n", source)


HEAD = "subject: x\nfrom: <a@a.example>\n"


def test_an_answer_to_another_domain_is_a_fact() -> None:
    assert mail("Reply-To: b@b.example\r\n") == HEAD + "reply-to: b.example\n\nHi"
    assert mail("Reply-To: Ann <b@mail.a.example>\r\n") == HEAD + "\nHi"


@pytest.mark.parametrize(
    "header", ["List-Id: <club.example>", "List-Unsubscribe: <u>", "Precedence: bulk"]
)
def test_a_list_is_a_fact_without_its_name(header: str) -> None:
    assert mail(f"{header}\r\nReply-To: l@club.example\r\n") == (
        HEAD + "reply-to: differs\nlist: yes\n\nHi"
    )


def test_links_that_lead_elsewhere_than_they_say_are_facts() -> None:
    text = html(
        '<a href="http://bank.example@www.evil.example/x">www.bank.example/login</a> and '
        '<a href="http://a.example/">a.example</a>'
    )
    assert "link mismatch: bank.example -> evil.example\n" in text
    assert "links: 2 to evil.example, a.example\n" in text


def test_links_of_plain_text_are_counted_by_host() -> None:
    assert "links: 3 to a.example, b.example\n" in mail(
        body="http://a.example/1 http://b.example https://www.a.example/2"
    )


def test_attachments_are_named_and_typed() -> None:
    text = mail(
        "Content-Type: multipart/mixed; boundary=b\r\n",
        "--b\r\n\r\nSee it\r\n--b\r\nContent-Type: application/octet-stream\r\n"
        'Content-Disposition: attachment; filename="bill.pdf.exe"\r\n\r\nMZ\r\n'
        "--b\r\nContent-Type: image/gif\r\n\r\nx\r\n"
        "--b\r\nContent-Type: image/gif\r\n\r\ny\r\n--b--",
    )
    assert "attachments: image/gif x2; bill.pdf.exe application/octet-stream\n" in text
    assert text.endswith("\n\nSee it")


@pytest.mark.parametrize(
    ("charset", "body", "fact"),
    [
        ("x-odd", b"hi", "unknown x-odd"),
        ("utf-8", b"caf\xe9", "not utf-8 as declared"),
        ("us-ascii", b"caf\xe9", "not us-ascii as declared"),
        ("", b"caf\xe9", "8-bit without charset"),
        ("unicode_escape", b"\\x41", "unknown unicode_escape"),
    ],
)
def test_odd_charsets_are_facts(charset: str, body: bytes, fact: str) -> None:
    declared = f"Content-Type: text/plain; charset={charset}\r\n" if charset else ""
    text = mail_text(b"Subject: x\r\n" + declared.encode() + b"\r\n" + body)
    assert f"charset: {fact}\n" in text
    assert "\ufffd" not in text


@pytest.mark.parametrize(
    "source",
    [
        '<p style="display: none">unseen</p>',
        '<font style="font-size:0px">unseen</font>',
        '<p style="font-size:1px">unseen</p>',
        '<div style="color:#fffffe">unseen</div>',
        '<table bgcolor="#00ff00"><tr><td><font color="#02fe00">unseen</font></td></tr></table>',
        '<div style="max-height:0;overflow:hidden">unseen</div>',
        '<span style="visibility:hidden">unseen</span>',
    ],
)
def test_text_that_a_reader_does_not_see_is_marked(source: str) -> None:
    text = html(f"<body bgcolor=white>Hello {source}</body>")
    assert "[hidden] unseen [/hidden]" in text
    assert "tricks: hidden 1\n" in text


def test_white_on_dark_and_small_but_readable_text_is_not_hidden() -> None:
    text = html(
        '<table bgcolor="black"><tr><td><font color="white">seen</font></td></tr></table>'
        '<p style="font-size:10px">small</p><p style="width:0.5em;font-size:1em">narrow</p>'
        '<p style="opacity:0.9">pale</p>'
    )
    assert "hidden" not in text


@pytest.mark.parametrize(
    "word", ["V<!-- x -->iagra", "Via<b></b>gra", "V<xyz>iagra", "Viag<!--a--><!--b-->ra"]
)
def test_a_word_with_something_inside_is_joined_and_marked(word: str) -> None:
    assert html(f"<p>Buy {word} now</p>").endswith("\n\nBuy [split] Viagra now")


def test_formatting_inside_a_word_is_no_trick() -> None:
    assert html("<p><b>F</b>irst <i>r</i>un</p><!-- note --><p>x</p>").endswith("\n\nFirst run x")


def test_letters_that_deceive_are_marked() -> None:
    text = mail(
        "Content-Type: text/plain; charset=utf-8\r\n", "Vi\u200bag\u200bra p\u0430ypal \uff26ree"
    )
    assert text.endswith("\n\n[zw] Viagra [mixed] p\u0430ypal [styled] Free")
    assert "tricks: zw 1, mixed 1, styled 1\n" in text


def test_joiners_that_a_script_or_emoji_needs_are_no_trick() -> None:
    text = mail(
        "Content-Type: text/plain; charset=utf-8\r\n",
        "\ufeff\u0645\u06cc\u200c\u0631\u0648\u0645 \U0001f469\u200d\U0001f4bb \u2764\ufe0f",
    )
    assert "tricks" not in text


FOOTER = "_______________________\r\nclub mailing list\r\nhttp://club.example/listinfo/club\r\n"


def test_what_tells_the_archive_is_left_out_unless_switched_on() -> None:
    raw = (
        "Received: from mx.example\r\nDate: Mon, 2 Sep 2002 10:00:00 +0200\r\nX-Spam-Flag: YES\r\n"
        f"Subject: Re: [club] Lunch\r\n\r\nAt noon?\r\n{FOOTER}"
    ).encode()
    assert mail_text(raw) == "subject: Re: Lunch\nfrom:\n\nAt noon?".replace("from:", "from: ")
    every = MailTextOptions(received=True, date=True, list_footer=True, subject_tags=True)
    text = mail_text(raw, every)
    assert text.startswith("subject: Re: [club] Lunch\n")
    assert "date: Mon, 2 Sep 2002 10:00:00 +0200\nreceived: from mx.example\n" in text
    assert "club mailing list" in text
    assert "Spam-Flag" not in text


def test_a_rule_of_dashes_without_a_list_below_stays() -> None:
    assert mail(body="One\r\n----------\r\nTwo").endswith("One\n----------\nTwo")


def test_the_options_key_tells_them_apart() -> None:
    assert MailTextOptions().key() == "default"
    assert MailTextOptions(date=True, received=True).key() == "received+date"


def test_a_long_body_keeps_its_head_and_its_tail() -> None:
    body = "".join(f"{number:07d} " for number in range(10_000))
    kept = mail(body=body).partition("\n\n")[2]
    head, tail = kept.split(" ... ")
    assert len(head) == MAX_BODY_CHARS // 4 * 3
    assert kept.startswith("0000000 ")
    assert tail.endswith("0009999")
    assert len(kept) == MAX_BODY_CHARS + 5


def test_what_groups_a_mail_is_read() -> None:
    parsed = parse(
        b"From: Ann <Ann@A.example>\r\nMessage-Id: <3@a>\r\nReferences: <1@a>\r\n <2@a>\r\n"
        b"In-Reply-To: <2@a>\r\nDate: Mon, 2 Sep 2002 10:00:00 +0200\r\n\r\nHi"
    )
    assert (parsed.address, parsed.message_id, parsed.thread) == ("ann@a.example", "3@a", "1@a")
    assert (parsed.references, parsed.date) == (("1@a", "2@a"), 1030953600)
    assert parse(b"Message-ID: <3@a>\r\nIn-Reply-To: <2@a>\r\n\r\n").thread == "2@a"
    assert parse(b"Message-ID: <3@a>\r\n\r\n").thread == "3@a"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2 Sep 02 10:00 EST", 1030978800),
        ("Tue, 31 Dec 2100 23:59:59 +0000", 4133980799),
        ("Sat, 1 Jan 2101 00:00:00 +0000", None),
        ("Thu, 1 Jan 1970 00:00:00 +0000", None),
        ("31 Feb 2002 10:00:00 +0000", None),
        ("soon", None),
    ],
)
def test_dates_are_read_within_sane_years(value: str, seconds: int | None) -> None:
    assert parse(f"Date: {value}\r\n\r\nHi".encode()).date == seconds


def test_a_stand_in_for_the_html_does_not_hide_it() -> None:
    raw = (
        b"Subject: x\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nSee the HTML.\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>" + b"Buy pills. " * 90 + b"</p>\r\n--b--\r\n"
    )
    assert "See the HTML.\nBuy pills." in mail_text(raw)


def test_the_lenient_reader_sees_what_the_fast_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = [mail_text(raw) for raw in OWN_MAILS]
    monkeypatch.setattr("training.mime.FAST_BYTES", 0)
    assert [mail_text(raw) for raw in OWN_MAILS] == fast


OWN_MAILS = (
    b"From: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= <g@example.com>\r\nSubject: =?koi8-r?B?xMEg?= x\r\n"
    b'Content-Type: multipart/alternative; boundary="=_b"\r\n\r\n'
    b"--=_b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    b"--=_b\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n--=_b--\r\n",
    b"Subject: parts\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n"
    b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable"
    b"\r\n\r\nGr=FC=DFe=20a=\r\nb\r\n--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n"
    b'inner\r\n--m\r\nContent-Type: application/zip; name="a.zip"\r\nContent-Disposition: '
    b"attachment; filename=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\nUEsDBAo=\r\n--m--",
)
