"""Mail text: what the model reads of a mail. One pure function, bytes in, text out.

Training, evaluation and serving all call `mail_text`; its version number is part of every
token cache and bundle, so a model never meets another view of the mail than it learned on.

    python -c "from training.mail import mail_text; print(mail_text(open('a.eml','rb').read()))"
"""

import email
import email.policy
import re
from dataclasses import dataclass
from email.message import Message
from email.utils import parseaddr
from typing import Final

from fast_mail_parser import ParseError, PyLazyMail, parse_email
from selectolax.lexbor import LexborHTMLParser

MAIL_TEXT_VERSION: Final = 1
"""Raise it with every change that alters the text of any mail."""

MAX_MAIL_BYTES: Final = 32 * 1024 * 1024
MAX_BODY_CHARS: Final = 16_384
"""Longer than 512 tokens of any real mail; it bounds the tokenizer's work, not the model's view."""

_MAX_HTML_CHARS: Final = 1 << 20
_MAX_FIELD_CHARS: Final = 1_024
_MAGIC: Final = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
}
_BLANKS: Final = re.compile(r"[^\S\n]+")
_NEWLINES: Final = re.compile(r" ?\n[ \n]*")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_HEADER_LINE: Final = re.compile(rb"^(?:From |[!-9;-~]+[ \t]*:)", re.MULTILINE)


class MailError(ValueError):
    """The bytes are not a mail: empty, too large, or another kind of file."""


@dataclass(frozen=True, slots=True)
class Mail:
    """The parts of a mail that the model reads, decoded to Unicode."""

    subject: str = ""
    sender: str = ""
    body: str = ""


def mail_text(raw: bytes) -> str:
    """The text of one RFC 5322 message.

    Any bytes that could pass for a mail give a text, however broken their MIME structure is.
    The result has at most about 18,500 characters.

    Raises:
        MailError: `raw` is empty, larger than MAX_MAIL_BYTES, or plainly not a mail.
    """
    return render(parse(raw))


def render(mail: Mail) -> str:
    """The text of a mail whose parts are known: 'subject: ...', 'from: ...', blank line, body."""
    subject = _clean(mail.subject[:_MAX_FIELD_CHARS]).replace("\n", " ")
    sender = _clean(mail.sender[:_MAX_FIELD_CHARS]).replace("\n", " ")
    return f"subject: {subject}\nfrom: {sender}\n\n{_clean(mail.body[:MAX_BODY_CHARS])}"


def parse(raw: bytes) -> Mail:
    """The parts of one RFC 5322 message.

    `fast_mail_parser` first; where it refuses (broken base64, malformed headers), the standard
    library's lenient parser, which never does.

    Raises:
        MailError: as `mail_text`.
    """
    _refuse_what_is_no_mail(raw)
    try:
        return _from_fast(parse_email(raw, mode="lazy"))
    except ParseError:
        return _from_stdlib(raw)


def _refuse_what_is_no_mail(raw: bytes) -> None:
    if not raw.strip():
        raise MailError("empty: 0 bytes of mail")
    if len(raw) > MAX_MAIL_BYTES:
        raise MailError(f"{len(raw):,} bytes, the limit is {MAX_MAIL_BYTES:,}")
    for magic, kind in _MAGIC.items():
        if raw.startswith(magic):
            raise MailError(f"{kind}, not a mail")
    head = raw[:4096]
    if b"\x00" in head and not _HEADER_LINE.search(head):
        raise MailError("binary data without a header line, not a mail")


def _from_fast(mail: PyLazyMail) -> Mail:
    sender = mail.from_
    if sender is not None:
        shown = f"{sender.display_name or ''} <{sender.address}>".strip()
    else:
        shown = next(iter(mail.headers.get("From", [])), "")
    return Mail(mail.subject, shown, _body(mail.text_plain, mail.text_html))


def _from_stdlib(raw: bytes) -> Mail:
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    plain: list[str] = []
    html: list[str] = []
    for part in message.walk():
        if part.get_content_disposition() == "attachment":
            continue
        if part.get_content_type() == "text/plain":
            plain.append(_decoded(part))
        elif part.get_content_type() == "text/html":
            html.append(_decoded(part))
    name, address = parseaddr(str(message.get("From", "")))
    sender = f"{name} <{address}>".strip() if address else str(message.get("From", ""))
    return Mail(str(message.get("Subject", "")), sender, _body(plain, html))


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset() or "latin-1", "replace")
    except LookupError:  # a charset that Python does not know
        return payload.decode("latin-1")


def _body(plain: list[str], html: list[str]) -> str:
    """The plain parts where they say anything, else the HTML parts as text."""
    text = "\n".join(plain)
    return text if text.strip() or not html else "\n".join(map(_html_text, html))


def _html_text(html: str) -> str:
    tree = LexborHTMLParser(html[:_MAX_HTML_CHARS])
    tree.strip_tags(["head", "script", "style"])
    return tree.body.text(separator=" ") if tree.body is not None else ""


def _clean(text: str) -> str:
    """Runs of blanks become one, runs of line ends one line end, control characters go."""
    return _NEWLINES.sub("\n", _BLANKS.sub(" ", _UNPRINTABLE.sub("", text))).strip()
