"""Mutated mails and MIME bombs through mail text: no exception, no hang, bounded output.

    pytest tests/training/test_mail_fuzz.py -m 'slow or not slow' -s     200,000 mutations as well

The slow test takes real mails from MAILRAY_CORPUS, else the fetched SpamAssassin corpus.
"""

# ruff: noqa: E501  (the bombs are one line each)

import base64
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from training.mail import MAX_BODY_CHARS, MailError, mail_text

MAX_TEXT_CHARS = MAX_BODY_CHARS + 8_000
MAX_SECONDS = 2.0

OWN_MAILS = (
    b"From: Ada <ada@example.com>\r\nReply-To: x@other.example\r\nSubject: [club] Re: Lunch\r\n"
    b"Message-ID: <1@example.com>\r\nReferences: <0@example.com>\r\n"
    b"Date: Mon, 2 Sep 2002 10:00:00 +0200\r\nList-Id: <club.example.com>\r\n\r\n"
    b"At noon? See http://www.example.com/a\r\n____________________\r\nclub mailing list\r\n",
    b"From: =?utf-8?B?R3LDvMOfZQ==?= <g@example.com>\r\nSubject: =?koi8-r?Q?=C4=C1?= x\r\n"
    b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="=_b"\r\n\r\n'
    b"--=_b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe \xe2\x80\x8bda\r\n"
    b"--=_b\r\nContent-Type: text/html; charset=x-odd\r\n\r\n<body bgcolor=white><p>V<!-- x -->ia"
    b"<font color=#fffffe>unseen</font><a href='http://b.example/'>www.a.example</a></p></body>\r\n"
    b"--=_b--\r\n",
    b"Subject: parts\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n"
    b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable"
    b"\r\n\r\nGr=FC=DFe=20a=\r\nb\r\n--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n"
    b'inner\r\n--m\r\nContent-Type: application/zip; name="a.zip"\r\nContent-Disposition: '
    b"attachment; filename=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\nUEsDBAoAAAA=\r\n--m--",
    b"Subject: =?utf-8?Q?caf=C3=A9?=\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64"
    b"\r\n\r\n" + base64.encodebytes(b"<html><div style='display:none'>x</div><b>Buy</b></html>"),
)


def mutated(rng: random.Random, mails: Sequence[bytes]) -> bytes:
    """A mail with one to three faults, of the kinds that transport and malice make."""
    raw = bytearray(rng.choice(mails))
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(7)
        size = len(raw) or 1
        at = rng.randrange(size)
        if kind == 0:  # byte flips
            for _ in range(rng.randint(1, 20)):
                if raw:
                    raw[rng.randrange(len(raw))] = rng.randrange(256)
        elif kind == 1:
            del raw[at:]
        elif kind == 2:  # a splice of two mails
            other = rng.choice(mails)
            raw[at:] = other[rng.randrange(len(other) or 1) :]
        elif kind == 3:  # a header line again, with other words
            end = raw.find(b"\n", at)
            line = bytes(raw[max(raw.rfind(b"\n", 0, at), 0) : end if end > 0 else size])
            raw[at:at] = line * rng.randint(1, 50)
        elif kind == 4:
            mark = raw.find(b"oundary")
            if mark >= 0:
                raw[mark + rng.randint(8, 30) : mark + 31] = rng.randbytes(rng.randint(0, 8))
        elif kind == 5:
            raw[at:at] = rng.randbytes(rng.randint(1, 200))
        else:
            start, end = sorted((at, rng.randrange(size)))
            del raw[start:end]
    return bytes(raw)


def check(raw: bytes) -> float:
    """Seconds that the text of `raw` took; asserts what holds for any bytes."""
    started = time.perf_counter()
    try:
        text = mail_text(raw)
    except MailError:
        return time.perf_counter() - started
    seconds = time.perf_counter() - started
    assert len(text) <= MAX_TEXT_CHARS
    assert "\x00" not in text
    text.encode("utf-8")  # no surrogate
    return seconds


def worst(rounds: int, mails: Sequence[bytes], seed: int) -> float:
    rng = random.Random(seed)
    slowest = 0.0
    for number in range(rounds):
        raw = rng.randbytes(rng.randint(1, 3_000)) if number % 20 == 0 else mutated(rng, mails)
        try:
            seconds = check(raw)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, round {number}: {raw[:300]!r}") from error
        slowest = max(slowest, seconds)
    return slowest


def test_mutated_mails_give_a_bounded_text_or_a_mail_error() -> None:
    assert worst(2_000, OWN_MAILS, seed=3) < MAX_SECONDS


@pytest.mark.slow
def test_200_000_mutated_real_mails(record_property: Callable[[str, object], None]) -> None:
    home = Path(os.environ.get("MAILRAY_HOME", Path.home() / ".mailray"))
    corpus = Path(os.environ.get("MAILRAY_CORPUS", home / "corpora" / "spamassassin"))
    files = sorted(file for file in corpus.rglob("*") if file.is_file() and file.suffix != ".json")
    mails = [file.read_bytes() for file in files] or OWN_MAILS
    slowest = worst(200_000, mails, seed=3)
    record_property("mails", len(mails))
    record_property("worst_seconds", slowest)
    print(f"200,000 mutations of {len(mails):,} mails, the slowest {slowest:.3f} s")  # noqa: T201
    assert slowest < MAX_SECONDS


BOMBS = {
    "nested-10000": "b''.join(b'Content-Type: multipart/mixed; boundary=\"b%d\"\\r\\n\\r\\n--b%d\\r\\n'"
    " % (i, i) for i in range(10_000)) + b'x\\n' * 10_000_000",
    "nested-250": "b''.join(b'Content-Type: multipart/mixed; boundary=\"b%d\"\\r\\n\\r\\n--b%d\\r\\n'"
    " % (i, i) for i in range(250)) + b'x\\n' * 40_000",
    "siblings": "b'Content-Type: multipart/mixed; boundary=b\\r\\n\\r\\n' + b'--b\\r\\n' * 5_000_000",
    "siblings-small": "b'Content-Type: multipart/mixed; boundary=b\\n\\n' + b'--b\\n\\nx\\n' * 16_000",
    "declared-2-gb": "b'Subject: x\\r\\nContent-Length: 2147483648\\r\\nContent-Type: message/"
    "external-body; size=2147483648\\r\\nLines: 2147483648\\r\\n\\r\\nhi'",
    "rfc822-1000": "b'Content-Type: message/rfc822\\r\\n\\r\\n' * 1_000 + b'x\\n' * 10_000_000",
    "rfc822-250": "b'Content-Type: message/rfc822\\r\\n\\r\\n' * 250 + b'x\\n' * 60_000",
    "header-lines": "b''.join(b'X-%d: y\\r\\n' % i for i in range(100_000)) + b'\\r\\nhi'",
    "header-10-mb": "b'Subject: ' + b'x' * 10_000_000 + b'\\r\\n\\r\\nhi'",
    "header-folded": "b'Subject: ' + b'x\\r\\n y' * 2_000_000 + b'\\r\\n\\r\\nhi'",
    "encoded-words": "b'Subject: ' + b'=?utf-8?q?a?= ' * 700_000 + b'\\r\\n\\r\\nhi'",
    "encoded-words-small": "b'Subject: ' + b'=?' * 65_000 + b'\\r\\n\\r\\nhi'",
    "parameters": "b'Content-Type: text/plain' + b';\"' * 5_000_000 + b'\\r\\n\\r\\nhi'",
    "addresses": "b'From: ' + b'<' * 60_000 + b'\\r\\nReferences: ' + b'<a' * 30_000 + b'\\n\\nhi'",
    "less-than": "b'Content-Type: text/html\\r\\n\\r\\n' + b'<' * 1_000_000",
    "divs": "b'Content-Type: text/html\\r\\n\\r\\n' + b'<div>' * 100_000 + b'x'",
    "divs-2900": "b'Content-Type: text/html\\n\\n' + b'<div>' * 2_900 + b'x'",
    "hidden-2900": "b'Content-Type: text/html\\n\\n' + b'<p style=color:#fff>x' * 2_900",
    "formatting-2900": "b'Content-Type: text/html\\n\\n' + b''.join(b'<b a=%d>' % i for i in "
    "range(1_450)) + b'<p>x' * 1_450",
    "hidden-divs": "b'Content-Type: text/html\\n\\n' + b'<div style=display:none>' * 100_000 + b'x'",
    "hidden-small": "b'Content-Type: text/html\\n\\n' + b'<p style=color:#fff>x' * 5_000",
    "formatting": "b'Content-Type: text/html\\n\\n' + b''.join(b'<b a=%d>' % i for i in range(3_000))"
    " + b'<p>x' * 9_000",
    "links": "b'Content-Type: text/html\\n\\n' + b'<a href=http://a.b>' * 3_000 + b'c.d ' * 500",
    "comments": "b'Content-Type: text/html\\n\\n' + b'a<!--' * 20_000",
    "many-html-parts": "b'Content-Type: multipart/mixed; boundary=b\\n\\n' + (b'--b\\nContent-Type: "
    "text/html\\n\\n' + b'<div>' * 20_000 + b'\\n') * 100",
    "quoted-printable": "b'Content-Transfer-Encoding: quoted-printable\\n\\n' + b'=41' * 10_000_000",
    "base64": "b'Content-Transfer-Encoding: base64\\r\\n\\r\\n' + b'aGVsbG8g' * 3_900_000",
    "zero-width": "b'Content-Type: text/plain; charset=utf-8\\n\\n' + b'a\\xe2\\x80\\x8b' * 8_000_000",
    "long-word": "b'\\n' + b'a' * 8_000_000 + '\\u200b\\u0430b'.encode()",
    "newlines": "b'Subject: x\\n\\n' + b'\\n' * 30_000_000 + b'x'",
    "blanks": "b'Subject: x\\n\\n' + b' ' * 30_000_000 + b'x'",
    "separators": "b'Subject: x\\n\\n' + b'_____\\n' * 5_000_000 + b'mailing list'",
}
EXPLODE = """
import resource, sys, time
from training.mail import mail_text
mail_text(b"Subject: warm\\n\\nup")
mail_text(b"Content-Type: text/html\\n\\n<b>up")
raw = {bomb}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
text = mail_text(raw)
seconds = time.perf_counter() - started
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(raw), len(text), seconds, (after - before) // 1024)
"""


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_bounded_in_time_and_memory(bomb: str) -> None:
    # A process of its own: peak memory is one number per process.
    done = subprocess.run(
        [sys.executable, "-c", EXPLODE.format(bomb=bomb)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    size, chars, seconds, megabytes = map(float, done.stdout.split())
    print(f"{size:,.0f} bytes: {seconds:.3f} s, {megabytes:.0f} MB more")  # noqa: T201
    assert chars <= MAX_TEXT_CHARS
    assert seconds < MAX_SECONDS
    assert megabytes < 200
