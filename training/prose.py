"""Running text: blanks and control characters cleaned, tricks with letters made visible.

[zw] word        invisible characters inside the word; alone: a run of them between words
[mixed] word     Latin and Cyrillic or Greek letters in one word
[styled]         fullwidth or mathematical letters stand for plain ones, which follow
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_CONTROLS: Final = bytes([*range(9), *range(14, 32), 127])
_LATIN_CONTROLS: Final = bytes([*_CONTROLS, *range(0x80, 0xA0)])
_BLANKS: Final = bytes.maketrans(b"\t\x0b\x0c\r\xa0", b"     ")
_SPACES: Final = re.compile("   *")  # a literal prefix: the search is memchr, not a state machine
_ODD: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\xa0\xad\u034f-\u052f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff"
    "\uff00-\uffff\U0001d400-\U0001d7ff\U000e0000-\U000e0fff]"
)
_NO_SUSPECTS: Final = bytes(set(range(256)) - {*range(0xCD, 0xD5), 0xE1, 0xE3, 0xEF, 0xF0, 0xF3})
"""All but the UTF-8 lead bytes of printable characters in `_ODD`."""
_GONE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufff0-\ufffb\ufffe\uffff]|"
    # Joiners and selectors that a script or an emoji needs.
    "(?<=[\u0590-\u10ff\u1780-\u17ff\u2190-\u2bff\u3000-\u9fff\U0001f000-\U0001faff\ufe0f])"
    "[\u200c-\u200f\ufe00-\ufe0f]+"
)
_WIDE_BLANKS: Final = re.compile(
    "[\t\x0b\x0c\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)
_ZW: Final = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff"
)
_ZW_RUN: Final = re.compile(rf"[{_ZW}](?:[{_ZW}\s]*[{_ZW}])?")
_ZW_WORD: Final = re.compile(rf"\w{{0,32}}(?:(?<=\w)[{_ZW}]{{1,64}}\w{{1,32}})+")
_ZW_ANY: Final = re.compile(rf"[{_ZW}]+")
_STYLED: Final = re.compile("[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff]+")
_OTHER: Final = "\u0370-\u03ff\u0400-\u052f"
_SEAM: Final = re.compile(rf"[A-Za-z][{_OTHER}]|[{_OTHER}][A-Za-z]")
_MIXED: Final = re.compile(rf"\w{{0,32}}(?:{_SEAM.pattern})\w{{0,32}}")
_MARKERS: Final = ("hidden", "split", "zw", "mixed", "styled")
MARKER: Final = re.compile(rf"\[({'|'.join(_MARKERS)})\]")
_SEPARATOR: Final = re.compile(r"\n[ \t]*(?:[_=-]{5}[^\n]*|-- ?\r?)(?=\n)")
_LIST_WORDS: Final = (  # `without_list_footer` looks for a part of each first
    "listinfo",
    "mailing list",
    "yahoo! groups",
    "yahoogroups",
    "majordomo",
    "email is sponsored by",
    "list maintainer",
    "list-unsubscribe",
)
_FOOTER_CHARS: Final = 1_500


def clean(text: str) -> str:
    """Runs of blanks become one, runs of line ends one line end; tricks become markers."""
    if text.isascii():
        text = text.encode("ascii").translate(_BLANKS, _CONTROLS).decode("ascii")
    else:
        text = text.replace("\t", " ").replace("\r", " ").replace("\xa0", " ")
        try:
            latin = text.encode("latin-1")
        except UnicodeEncodeError:
            latin = b"\xad"
        if b"\xad" in latin:  # a soft hyphen, or more than Latin-1
            text = _marked(text)
        else:
            text = latin.translate(_BLANKS, _LATIN_CONTROLS).decode("latin-1")
    if "  " in text:
        text = _SPACES.sub(" ", text)
    if "\n" not in text:
        return text.strip()
    return "\n".join([line for line in map(str.strip, text.split("\n")) if line])


def one_line(text: str) -> str:
    """As `clean`, on one line."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return clean(text).replace("\n", " ")


def ends(text: str, limit: int) -> str:
    """A longer text's first 3/4 and last 1/4 of `limit` characters, with ' ... ' between."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 4 * 3]} ... {text[-(limit // 4) :]}"


def tricks(subject: str, body: str) -> str:
    """How often each marker stands in a mail: 'hidden 2, zw 1'; '' for none."""
    found = MARKER.findall(body)
    if "[" in subject:
        found += MARKER.findall(subject)
    return ", ".join(f"{name} {found.count(name)}" for name in _MARKERS if name in found)


@lru_cache(maxsize=4096)
def remains(character: str) -> str:
    """What `clean` leaves of a character by itself: '' of one that it drops, and of a blank."""
    if _STYLED.match(character):
        return unicodedata.normalize("NFKC", character)
    gone = character.isspace() or _GONE.match(character) or _ZW_ANY.match(character)
    return "" if gone else character


def without_list_footer(body: str) -> str:
    """The body without the footer of a mailing list's software, if it ends with one."""
    tail = body[-_FOOTER_CHARS:]
    lower = tail.lower()
    if not ("list" in lower or "yahoo" in lower or "majordomo" in lower or "sponsored" in lower):
        return body
    for found in _SEPARATOR.finditer(tail):
        after = lower[found.end() : found.end() + 600]
        if any(word in after for word in _LIST_WORDS):
            return body[: len(body) - len(tail) + found.start()]
    return body


def _marked(text: str) -> str:
    """Letters that deceive the eye become plain ones with a marker before the word."""
    if _plain(text):
        return text
    text = _WIDE_BLANKS.sub(" ", _GONE.sub("", text.removeprefix("\ufeff")))
    if _ZW_ANY.search(text):
        text = _ZW_WORD.sub(_zw_word, text)
        text = _ZW_RUN.sub(" [zw] ", text)
    if _STYLED.search(text):
        text = _STYLED.sub(lambda m: "[styled] " + unicodedata.normalize("NFKC", m[0]), text)
    return _MIXED.sub(r"[mixed] \g<0>", text) if _SEAM.search(text) else text


def _plain(text: str) -> bool:
    """Whether nothing is to be marked, found without a look at each character by the regex."""
    if not text.replace("\n", " ").isprintable():
        return False
    return not text.encode("utf-8").translate(None, _NO_SUSPECTS) or not _ODD.search(text)


def _zw_word(found: re.Match[str]) -> str:
    whole = found[0]
    joined = _ZW_ANY.sub("", whole)
    return f"[zw] {joined}" if len(joined) < len(whole) else whole
