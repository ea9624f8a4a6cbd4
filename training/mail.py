"""Mail text: what the model reads of a mail. One pure function, bytes in, text out.

Training, evaluation and serving all call `mail_text`; its version number is part of every
token cache and bundle, so a model never meets another view of the mail than it learned on.

    subject: Your account
    from: PayPal <service@paypa1.example>
    reply-to: freemail.example              only where its domain is not that of From
    list: yes                               a mailing list's headers, without its name
    tricks: hidden 1, zw 3                  markers in the text below, counted
    attachments: invoice.pdf.exe application/octet-stream
    link mismatch: paypal.com -> evil.example
    links: 4 to evil.example, cdn.example
    charset: not us-ascii as declared
    format: html only, 3 images

    Dear [zw] customer, ...                 the first 3/4 and last 1/4 of a long body

A fact that is absent takes no line. Received, dates, X- headers, list footers and subject tags are
left out, since they tell a corpus's archive rather than spam; `MailTextOptions` brings some back.

    python -c "from training.mail import mail_text; print(mail_text(open('a.eml','rb').read()))"
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date as calendar_date
from typing import Final, NamedTuple

from training import prose
from training.markup import MAX_HTML_CHARS, owner, page
from training.mime import Part, is_page, read

MAIL_TEXT_VERSION: Final = 2
"""Raise it with every change that alters the text of any mail."""

MAX_MAIL_BYTES: Final = 32 * 1024 * 1024
MAX_BODY_CHARS: Final = 16_384
"""Longer than 512 tokens of any real mail; it bounds the tokenizer's work, not the model's view."""

MAX_RAW_BODY_CHARS: Final = MAX_BODY_CHARS // 4 * 5
"""Before blanks are squeezed."""
MAX_FIELD_CHARS: Final = 1_024
_MAX_FACT_CHARS: Final = 300
_MAX_LISTED: Final = 4
_MAX_REFERENCES: Final = 32
_MAGIC: Final = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
}
_MAGIC_STARTS: Final = tuple(_MAGIC)
_HEADER_LINE: Final = re.compile(rb"^(?:From |[!-9;-~]+[ \t]*:)", re.MULTILINE)
_ADDRESS: Final = re.compile(r"^(.*)<\s*([^<>]*?)\s*>[^<>]*$", re.DOTALL)
_BARE_ADDRESS: Final = re.compile(
    r"^\s*([^\s<>()]{1,320}@[^\s<>()]{1,255})\s*(?:\((.{0,300})\))?\s*$"
)
_ID: Final = re.compile(r"<([^<>\s]{1,250})>")
_TAG: Final = re.compile(
    r"^\s*((?:(?:re|fwd?|aw)\s*:\s*){0,4})(?:\[[^\[\]\s]{1,30}\]|\*{3,}\s*spam\s*\*{3,})\s*", re.I
)
_HOST: Final = re.compile(r"://(?:[^\s/?#@]{0,100}@)?([^\s/?#:<>\"'()\[\],]{1,255})")
_DATE: Final = re.compile(
    r"(\d{1,2})[ -]+([A-Za-z]{3})[a-z]*[ -]+(\d{2,4})\s+(\d{1,2}):(\d\d)(?::(\d\d))?\s*"
    r"(?:([+-])(\d\d)(\d\d)|([A-Z]{3}))?"
)
_MONTHS: Final = {
    **{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6},
    **{"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12},
}
_ZONE_HOURS: Final = {
    **{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5},
    **{"MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
}
_EPOCH: Final = calendar_date(1970, 1, 1).toordinal()
_EARLIEST: Final = (calendar_date(1980, 1, 1).toordinal() - _EPOCH) * 86_400
_LATEST: Final = (calendar_date(2101, 1, 1).toordinal() - _EPOCH) * 86_400


class MailError(ValueError):
    """The bytes are not a mail: empty, too large, or another kind of file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailTextOptions:
    """What the text has beyond the default; a part of every cache key."""

    received: bool = False
    """A line for each of the first five Received headers."""
    date: bool = False
    """The Date header."""
    list_footer: bool = False
    """The footer that a mailing list's software puts below the body."""
    subject_tags: bool = False
    """A list's [tag] and another filter's ***SPAM*** before the subject."""

    def key(self) -> str:
        """The options that are on, joined by '+'; 'default' where none is."""
        on = [field.name for field in fields(self) if getattr(self, field.name)]
        return "+".join(on) or "default"


DEFAULT_OPTIONS: Final = MailTextOptions()


def text_options(extras: Iterable[str]) -> MailTextOptions:
    """The options of that name on, the others off."""
    return MailTextOptions(**dict.fromkeys(extras, True))


class Mail(NamedTuple):
    """The parts of a mail that the model reads, decoded to Unicode, and what groups it."""

    subject: str = ""
    sender: str = ""
    body: str = ""
    facts: tuple[str, ...] = ()
    """Compact lines between `from` and the body, such as 'list: yes'."""
    address: str = ""
    """The sender's address, lower-case."""
    sent: str = ""
    """The Date, Message-ID and References (else In-Reply-To) headers as they stand: what is read
    off them is computed when asked for, since the text needs none of it."""
    own_id: str = ""
    answers: str = ""

    @property
    def date(self) -> int | None:
        """Seconds since 1970 of the Date header; None if absent, unreadable, not in 1980..2100."""
        return _epoch(self.sent)

    @property
    def message_id(self) -> str:
        """The id without its brackets, '' if there is none."""
        found = _ID.search(self.own_id)
        return found[1] if found else ""

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of the mails before it in its thread, at most 32, the oldest first."""
        return tuple(_ID.findall(self.answers)[:_MAX_REFERENCES])

    @property
    def thread(self) -> str:
        """The id of the thread's first mail: its own where it answers none."""
        found = _ID.search(self.answers)
        return found[1] if found else self.message_id


def mail_text(raw: bytes, options: MailTextOptions = DEFAULT_OPTIONS) -> str:
    """The text of one RFC 5322 message.

    Any bytes that could pass for a mail give a text, however broken their MIME structure is.
    The result has at most about 23,000 characters, no NUL and no surrogate.

    Raises:
        MailError: `raw` is empty, larger than MAX_MAIL_BYTES, or plainly not a mail.
    """
    return render(parse(raw, options))


def render(mail: Mail) -> str:
    """The text of a mail whose parts are known: subject, from, facts, a blank line, body."""
    subject = prose.one_line(mail.subject[:MAX_FIELD_CHARS])
    body = prose.clean(prose.ends(mail.body, MAX_RAW_BODY_CHARS))
    lines = [f"subject: {subject}", f"from: {prose.one_line(mail.sender[:MAX_FIELD_CHARS])}"]
    tricks = prose.tricks(subject, body)
    if tricks:
        lines.append(f"tricks: {tricks}")
    lines += [prose.one_line(fact[:_MAX_FACT_CHARS]) for fact in mail.facts]
    return "\n".join(lines) + "\n\n" + prose.ends(body, MAX_BODY_CHARS)


def parse(raw: bytes, options: MailTextOptions = DEFAULT_OPTIONS) -> Mail:
    """The parts of one RFC 5322 message.

    Raises:
        MailError: as `mail_text`.
    """
    _refuse_what_is_no_mail(raw)
    headers, parts = read(raw)

    def first(name: str) -> str:
        values = headers.get(name)
        return values[0] if values else ""

    subject = first("subject")[: 2 * MAX_FIELD_CHARS]
    if not options.subject_tags and ("[" in subject or "*" in subject):
        subject = _TAG.sub(r"\1", subject)
    name, address = _sender(first("from")[:MAX_FIELD_CHARS])
    bulk = "list-id" in headers or "list-unsubscribe" in headers or "list-post" in headers
    if not bulk and "precedence" in headers:
        bulk = first("precedence").strip().lower() in ("bulk", "list")
    facts = _header_facts(headers, address, bulk)
    if options.date and "date" in headers:
        facts.append(f"date: {first('date')}")
    if options.received:
        facts += [f"received: {value}" for value in headers.get("received", [])[:5]]
    body, told = _body(parts, options)
    return Mail(
        subject=subject,
        sender=f"{name} <{address}>".lstrip() if address else name,
        body=body,
        facts=tuple(facts + told),
        address=address.lower(),
        sent=first("date")[:100],
        own_id=first("message-id")[:MAX_FIELD_CHARS],
        answers=(first("references") or first("in-reply-to"))[:8_192],
    )


def _refuse_what_is_no_mail(raw: bytes) -> None:
    head = raw[:4096]
    if not head.strip() and not raw.strip():
        raise MailError("empty: 0 bytes of mail")
    if len(raw) > MAX_MAIL_BYTES:
        raise MailError(f"{len(raw):,} bytes, the limit is {MAX_MAIL_BYTES:,}")
    if head.startswith(_MAGIC_STARTS):
        kind = next(kind for magic, kind in _MAGIC.items() if head.startswith(magic))
        raise MailError(f"{kind}, not a mail")
    if b"\x00" in head and not _HEADER_LINE.search(head):
        raise MailError("binary data without a header line, not a mail")


def _sender(value: str) -> tuple[str, str]:
    """Name and address of a decoded From header; the whole as name where there is no address."""
    found = _ADDRESS.match(value)
    if found:
        return found[1].strip().strip('"').replace('\\"', '"').strip(), found[2]
    bare = _BARE_ADDRESS.match(value)
    return (bare[2] or "", bare[1]) if bare else (value, "")


def _header_facts(headers: dict[str, list[str]], address: str, bulk: bool) -> list[str]:
    facts = []
    if "reply-to" in headers:
        answers = _sender(headers["reply-to"][0][:MAX_FIELD_CHARS])[1].lower().rpartition("@")[2]
        if answers and owner(answers) != owner(address.lower().rpartition("@")[2]):
            # A list's own address would name the archive.
            facts.append("reply-to: differs" if bulk else f"reply-to: {answers}")
    if bulk:
        facts.append("list: yes")
    return facts


def _body(parts: list[Part], options: MailTextOptions) -> tuple[str, list[str]]:
    """The plain parts where they say as much as the HTML, else the HTML as text; and the facts."""
    plain: list[str] = []
    shown: list[str] = []
    hosts: list[str] = []
    mismatches: list[str] = []
    attached: list[str] = []
    faults: list[str] = []
    images = 0
    room = MAX_HTML_CHARS
    for kind, name, text, fault in parts:
        if fault:
            faults.append(fault)
        if text is None:
            attached.append(f"{name} {kind}".lstrip())
        elif is_page(kind, text):
            html = page(text, room)
            room -= min(room, len(text))
            shown.append(html.text)
            hosts += html.hosts
            mismatches += html.mismatches
            images += html.images
        else:
            plain.append(text)
            if name:
                attached.append(f"{name} {kind}")
    body = plain[0] if len(plain) == 1 else "\n".join(plain)
    html_only = bool(shown) and (not body or body.isspace())
    if shown:
        html_text = "\n".join(shown)
        if html_only:
            body = html_text
        elif len(html_text) > 4 * len(body) + 400:  # the plain part is a mere stand-in
            body = f"{body}\n{html_text}"
    if not options.list_footer:
        body = prose.without_list_footer(body)
    if not hosts and "://" in body:
        found = _HOST.findall(prose.ends(body, MAX_RAW_BODY_CHARS))[:200]
        hosts = [host.lower().removeprefix("www.").rstrip(".") for host in found]
    facts = []
    if attached:
        facts.append(f"attachments: {_counted(attached, '; ')}")
    if mismatches:
        facts.append(f"link mismatch: {_counted(mismatches, ', ')}")
    if hosts:
        facts.append(f"links: {len(hosts)} to {_counted(hosts, ', ', counts=False)}")
    if faults:
        facts.append(f"charset: {_counted(faults, ', ', counts=False)}")
    if html_only or images:
        pictures = f"{images} image{'s' * (images > 1)}" if images else ""
        facts.append("format: " + ", ".join(filter(None, ["html only" * html_only, pictures])))
    return body, facts


def _counted(items: list[str], glue: str, *, counts: bool = True) -> str:
    """The most frequent items, at most four, and how many more there are."""
    if len(items) == 1:
        return items[0][:100]
    counted: dict[str, int] = {}
    for item in items:
        counted[item] = counted.get(item, 0) + 1
    ranked = sorted(counted.items(), key=lambda pair: -pair[1])
    listed = [
        item[:100] + (f" x{count}" if counts and count > 1 else "")
        for item, count in ranked[:_MAX_LISTED]
    ]
    more = len(ranked) - _MAX_LISTED
    return glue.join(listed) + (f" and {more} more" if more > 0 else "")


def _epoch(value: str) -> int | None:
    """Seconds since 1970 of an RFC 5322 date; an unknown zone is taken for UTC."""
    found = _DATE.search(value)
    if not found:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes, zone = found.groups()
    number = int(year)
    if len(year) < 4:  # as RFC 5322 4.3 reads two and three digits
        number += 1900 if number >= 50 else 2000
    try:
        days = calendar_date(number, _MONTHS[month.lower()], int(day)).toordinal() - _EPOCH
    except (ValueError, KeyError):
        return None
    seconds = days * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if sign:
        offset = int(zone_hours) * 3600 + int(zone_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    elif zone:
        seconds -= _ZONE_HOURS.get(zone, 0) * 3600
    return seconds if _EARLIEST <= seconds < _LATEST else None
