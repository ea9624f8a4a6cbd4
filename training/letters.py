"""Letters: a mail taken apart and put together again, so that one part of it can be changed.

    letter = opened(raw, None, options)             None where it cannot be put together again
    mail_text_of(letter, options)                   the mail text of the untouched mail, exactly

The parts are those that mail text is made of, as `training.mime` reads them; what it never reads,
the content of attachments, is left out. Line ends, transfer encodings and charsets are made anew.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from email.header import Header
from email.message import Message
from typing import Final

from training.mail import Mail, MailTextOptions, parse, render
from training.mime import Part, decoded, read
from training.originals import mail_of

_BOUNDARY: Final = "=_letter_="
"""No line of base64, so of no part."""
_OF_PARTS: Final = ("content-", "mime-version")
"""How header fields begin that tell of the parts."""
_FAULTY: Final = re.compile(r"unknown (.+)|not (.+) as declared")


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail in parts."""

    headers: dict[str, list[str]]
    """By lower-case name, decoded; without those that tell of the parts"""
    parts: tuple[Part, ...]
    text: Mail | None = None
    """The mail, where it came as mail text and has but a subject."""

    @property
    def subject(self) -> str:
        """The first one's, '' if there is none."""
        return self.headers.get("subject", [""])[0]

    def entitled(self, subject: str) -> "Letter":
        """With another subject."""
        return replace(self, headers=self.headers | {"subject": [subject]})

    def holding(self, parts: Iterable[Part]) -> "Letter":
        """With other parts."""
        return replace(self, parts=tuple(parts))


def opened(raw: bytes | None, text: str | None, options: MailTextOptions) -> Letter | None:
    """The mail of these bytes, or else of this mail text; None where it is too broken for that.

    Raises:
        MailError: the bytes are no mail.
    """
    mail = mail_of(raw, text, options)
    if raw is None:
        body = Part("text/plain", "", mail.body, "")
        letter = Letter({"subject": [mail.subject]}, (body,), mail)
    else:
        found = read(raw)
        kept = {k: v for k, v in found.headers.items() if not k.startswith(_OF_PARTS)}
        letter = Letter(kept, tuple(found.parts))
    return letter if mail_text_of(letter, options) == render(mail) else None


def mail_text_of(letter: Letter, options: MailTextOptions) -> str:
    """The mail text that a letter gives.

    Raises:
        MailError: it has become too large.
    """
    mail = parse(sealed(letter), options)
    if letter.text is not None:
        mail = letter.text._replace(subject=letter.subject, body=mail.body)
    return render(mail)


def sealed(letter: Letter) -> bytes:
    """The letter as an RFC 5322 message."""
    fields = [(name, value) for name, values in letter.headers.items() for value in values]
    lines = [f"{name}: {_encoded(value)}\n" for name, value in fields]
    kind = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
    mark = f"--{_BOUNDARY}".encode()
    parts = [piece for part in letter.parts for piece in (mark, b"\n", _entity(part), b"\n")]
    return b"".join([*(line.encode() for line in lines), kind.encode(), *parts, mark, b"--\n"])


def _encoded(value: str) -> str:
    value = " ".join(value.split())
    if value.isascii():
        return value
    return Header(value.encode("utf-8", "replace"), "utf-8", maxlinelen=76).encode()


def _entity(part: Part) -> bytes:
    entity = Message()
    entity.set_payload("")
    name = {"name": _line(part.name)} if part.name else {}
    kind = _line(part.kind)
    if part.text is None:
        entity.add_header("Content-Type", kind, **name)
        entity.add_header("Content-Disposition", "attachment")
        return entity.as_bytes()
    content = part.text.encode("utf-8", "replace")
    entity.add_header("Content-Type", kind, **_charset(part, content), **name)
    entity["Content-Transfer-Encoding"] = "base64"
    return entity.as_bytes() + base64.encodebytes(content)


def _line(text: str) -> str:
    """What a header can hold: one line, and no half of a surrogate pair."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()


def _charset(part: Part, content: bytes) -> dict[str, str]:
    """UTF-8, or what a mail claims in its stead, where the text is read rightly all the same."""
    if not part.fault:
        return {"charset": "utf-8"}
    fault = _FAULTY.fullmatch(part.fault)
    claim = {"charset": fault[1] or fault[2]} if fault else {}
    declared = f"text/plain; charset={claim['charset']}" if claim else ""
    return claim if decoded(content, declared)[0] == part.text else {"charset": "utf-8"}
