"""The parts of a message: bytes in, headers and leaves out, in bounded time whatever the bytes.

`fast_mail_parser` reads mails of up to FAST_BYTES. Larger ones, and those that it refuses, go to a
small lenient reader whose work is bounded by construction. The split is measured, not taste: the
fast parser is superlinear in hostile input (10 MB of encoded words: 7 minutes; 250 nested
message/rfc822 around 30 MB: 45 s and 8.7 GB), and harmless below 128 KiB (worst: 0.26 s).
"""

import binascii
import re
from email.errors import HeaderParseError
from email.header import decode_header
from encodings.aliases import aliases
from typing import Final, NamedTuple

from fast_mail_parser import ParseError, PyLazyMimePart, parse_email_tree

FAST_BYTES: Final = 128 * 1024
MAX_PARTS: Final = 64
MAX_PART_BYTES: Final = 1 << 20
"""Of a text part: its first 3/4 and last 1/4 where it is longer."""
_MAX_WORDS: Final = 500
"""Marks of encoded words in a mail beyond 16 KiB: the fast parser is quadratic in them."""
_MAX_DEPTH: Final = 8
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_VALUE_BYTES: Final = 4_096

_UNDECLARED: Final = "8-bit without charset"
_BINARY: Final = re.compile("(base64|bz2|hex|quopri|uu|zlib)_codec|rot_13|mbcs|tactis")
_CODECS: Final = {
    spelled: codec
    for alias, codec in aliases.items()
    if not _BINARY.fullmatch(codec)
    for spelled in (alias, codec)
} | {
    # As browsers read them (WHATWG Encoding): a superset stands for its often misused subset.
    **dict.fromkeys(["latin_1", "iso_8859_1", "iso8859_1", "latin1"], "cp1252"),
    **dict.fromkeys(["gb2312", "gbk", "x_gbk", "chinese"], "gb18030"),
    "iso_8859_8_i": "iso8859_8",
    "x_sjis": "shift_jis",
    "unicode_1_1_utf_7": "utf_7",
}
"""A table rather than `codecs.lookup`: that imports modules by a name from the mail, and keeps
every unknown one for ever."""
_ASCII_SUPERSETS: Final = ("ascii", "utf_8", "cp125", "iso8859", "koi8", "gb18030", "euc", "big5")
_PARAMETER: Final = {
    name: re.compile(rf';\s*{name}\*?\s*=\s*(?:"([^"]{{0,300}})"|([^\s;"]{{1,300}}))', re.I)
    for name in ("charset", "boundary", "name", "filename")
}
_HEADER: Final = re.compile(rb"^([!-9;-~]{1,80})[ \t]*:((?:[^\n]|\n[ \t])*)", re.MULTILINE)
_LOWER: Final = {
    name: name.lower()
    for name in (
        "Received",
        "From",
        "To",
        "Subject",
        "Date",
        "Message-Id",
        "Message-ID",
        "Content-Type",
        "MIME-Version",
        "Delivered-To",
        "Return-Path",
        "Content-Transfer-Encoding",
        "Sender",
        "Reply-To",
        "References",
        "In-Reply-To",
        "List-Id",
        "List-Unsubscribe",
        "List-Post",
        "List-Help",
        "List-Subscribe",
        "Precedence",
        "X-Mailer",
    )
}
"""Saves most of the calls of `lower`."""
_NOT_BASE64: Final = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)


class Part(NamedTuple):
    """A leaf of the MIME tree; `text` is None where it is no text to be read."""

    kind: str
    name: str
    text: str | None
    fault: str
    """What is odd about its charset, '' if nothing is."""


class Message(NamedTuple):
    """Headers by lower-case name, decoded, and at most MAX_PARTS leaves in their order."""

    headers: dict[str, list[str]]
    parts: list[Part]


def read(raw: bytes) -> Message:
    """The headers and leaves of a message; no bytes are refused."""
    if len(raw) <= FAST_BYTES and not (len(raw) > 16_384 and raw.count(b"=?") > _MAX_WORDS):
        try:
            return _fast(raw)
        except ParseError:  # broken base64, nested too deep, malformed headers
            pass
    parts: list[Part] = []
    headers = _lenient(raw, parts, 0)
    return Message(headers, parts)


def _fast(raw: bytes) -> Message:
    root = parse_email_tree(raw, mode="lazy")
    headers = {_LOWER.get(name) or name.lower(): values for name, values in root.headers.items()}
    parts: list[Part] = []
    stack: list[PyLazyMimePart] = [root]
    while stack and len(parts) < MAX_PARTS:
        node = stack.pop()
        kind = node.content_type
        if not kind.startswith("text/"):
            if node.is_message:
                parts.append(Part("message/rfc822", node.filename, None, ""))
            if node.children:
                stack.extend(reversed(node.children[:MAX_PARTS]))
                continue
        if kind != "message/rfc822":
            if node is root:
                declared = headers.get("content-type")
            else:
                own = node.headers
                declared = own.get("Content-Type") or own.get("Content-type")
            if not is_text(kind, node.disposition):
                if not kind.startswith("multipart/"):
                    parts.append(Part(kind, node.filename, None, ""))
                continue
            text, fault = decoded(_bounded(node.content or b""), declared[0] if declared else "")
            parts.append(Part(kind, node.filename, text, fault))
    return Message(headers, parts)


def is_text(kind: str, disposition: str | None) -> bool:
    """Whether a part is to be read; a type that is none (`foo`) counts as text, as in readers."""
    if disposition is not None and disposition.lower() == "attachment":
        return False
    return (kind.startswith("text/") and kind != "text/calendar") or "/" not in kind


def is_page(kind: str, text: str) -> bool:
    """Whether the text of a part is HTML, whatever its type says."""
    return kind == "text/html" or text[:200].lstrip()[:6].lower() in ("<html>", "<!doct")


def _bounded(content: bytes) -> bytes:
    if len(content) <= MAX_PART_BYTES:
        return content
    return content[: MAX_PART_BYTES // 4 * 3] + content[-MAX_PART_BYTES // 4 :]


def decoded(content: bytes, content_type: str) -> tuple[str, str]:
    """The text of a part's bytes, and what is odd about its charset ('' if nothing)."""
    given = parameter(content_type, "charset") if content_type else ""
    codec = _CODECS.get(given.lower().replace("-", "_").replace(".", "_")) if given else None
    fault = f"unknown {given[:30]}" if given and codec is None else ""
    if content.isascii() and (codec is None or codec.startswith(_ASCII_SUPERSETS)):
        return content.decode("ascii"), fault
    if codec is not None:
        try:
            return content.decode(codec), ""
        except UnicodeError:
            if len(content) < MAX_PART_BYTES:  # else a character may have been cut in two
                fault = f"not {given[:30]} as declared"
    try:
        return content.decode("utf-8"), fault or _UNDECLARED
    except UnicodeError:
        pass
    if codec == "utf_8" and not content.decode("utf-8", "ignore").isascii():
        return content.decode("utf-8", "replace"), fault  # mostly true
    # ASCII or UTF-8 was a lie: Western 8-bit is what it most often hides.
    lie = codec in (None, "ascii", "utf_8")
    return content.decode("cp1252" if lie else str(codec), "replace"), fault or _UNDECLARED


def parameter(value: str, name: str) -> str:
    """A parameter of a MIME header's value, '' if absent."""
    found = _PARAMETER[name].search(value[:_MAX_VALUE_BYTES])
    return (found[1] or found[2] or "") if found else ""


def _lenient(raw: bytes, parts: list[Part], depth: int) -> dict[str, list[str]]:
    """The headers of an entity; its leaves are appended to `parts`."""
    if raw[:1] == b"\n" or raw[:2] == b"\r\n":
        head, body = b"", raw.lstrip(b"\r")[1:]
    else:
        end = raw.find(b"\n\r\n")
        bare = raw.find(b"\n\n", 0, end if end >= 0 else len(raw))
        end = bare if bare >= 0 else end
        head, body = (raw[:end], raw[end + (2 if bare >= 0 else 3) :]) if end >= 0 else (raw, b"")
    headers: dict[str, list[str]] = {}
    for found in _HEADER.finditer(head[:_MAX_HEADER_BYTES]):
        value = " ".join(_word(found[2][:_MAX_VALUE_BYTES]).split())
        headers.setdefault(found[1].decode("ascii").lower(), []).append(value)
    declared = headers.get("content-type", [""])[0]
    kind = declared.partition(";")[0].strip().lower() or "text/plain"
    boundary = parameter(declared, "boundary")
    if kind.startswith("multipart/") and boundary:
        mark = b"--" + boundary.encode("latin-1", "replace")
        pieces = (b"\n" + body).split(b"\n" + mark, MAX_PARTS + 1)[1 : MAX_PARTS + 1]
        for piece in pieces:
            if len(parts) >= MAX_PARTS or piece.startswith(b"--"):
                break
            if depth < _MAX_DEPTH:
                _lenient(piece.partition(b"\n")[2], parts, depth + 1)
        return headers
    disposition = headers.get("content-disposition", [""])[0]
    name = parameter(disposition, "filename") or parameter(declared, "name")
    if kind == "message/rfc822":
        parts.append(Part(kind, name, None, ""))
        if depth < _MAX_DEPTH:
            _lenient(body, parts, depth + 1)
    elif is_text(kind, disposition.partition(";")[0].strip() or None):
        encoding = headers.get("content-transfer-encoding", [""])[0].lower()
        text, fault = decoded(_transferred(_bounded(body), encoding), declared)
        parts.append(Part(kind, name, text, fault))
    else:
        parts.append(Part(kind, name, None, ""))
    return headers


def _transferred(body: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding != "base64":
        return body
    digits = body.translate(None, _NOT_BASE64)
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _word(value: bytes) -> str:
    """A header value with its encoded words (RFC 2047) decoded."""
    try:
        text = value.decode("utf-8")
    except UnicodeError:
        text = value.decode("latin-1")
    if "=?" not in text:
        return text
    try:
        pieces = decode_header(" ".join(text.split()))
    except (HeaderParseError, ValueError):
        return text
    return "".join(
        piece if isinstance(piece, str) else decoded(piece, f";charset={charset or 'utf-8'}")[0]
        for piece, charset in pieces
    )
