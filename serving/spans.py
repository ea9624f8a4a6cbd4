"""Spans: the words of a mail text that a model has read, each with the part of the mail it is in.

A word is what a reader takes for one: letters and digits in a row, with what joins them
(`paypa1.example`, `don't`, a@b.example), a whole web address, one ideograph, one sign.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

Section = Literal[
    "subject",
    "from",
    "reply-to",
    "list",
    "tricks",
    "attachments",
    "link mismatch",
    "links",
    "charset",
    "format",
    "date",
    "received",
    "link",
    "body",
]
"""A line of the mail text (training/mail.py); `link` is a web address in the body."""
_FACTS: Final[dict[str, Section]] = {
    "reply-to": "reply-to",
    "list": "list",
    "tricks": "tricks",
    "attachments": "attachments",
    "link mismatch": "link mismatch",
    "links": "links",
    "charset": "charset",
    "format": "format",
    "date": "date",
    "received": "received",
}
_LINK: Final = re.compile(r"(?:(?:https?|ftp)://|www\.)[^\s<>\"']+", re.IGNORECASE)
_JOINERS: Final = frozenset(".@'\u2019-_+&")


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the mail text that belongs to one section."""

    section: Section
    start: int
    content: int
    """Where what follows the name of the line begins; `start` where there is no name."""
    end: int


def parts(text: str) -> list[Part]:
    """All of a mail text: its lines up to the blank one, then body and links by turns."""
    found: list[Part] = []
    at = 0
    head, _, _ = text.partition("\n\n")
    for number, line in enumerate(head.split("\n")):
        name = line.partition(":")[0]
        section: Section = ("subject", "from")[number] if number < 2 else _FACTS.get(name, "body")
        content = at + len(name) + 1
        content += text[content : content + 1] == " "
        found.append(Part(section, at, content, at + len(line)))
        at += len(line) + 1
    at = min(len(head) + 2, len(text))
    for link in _LINK.finditer(text, at):
        found.append(Part("body", at, at, link.start()))
        found.append(Part("link", link.start(), link.start(), link.end()))
        at = link.end()
    return [*found, Part("body", at, at, len(text))]


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of the mail text, and which tokens make it."""

    start: int
    end: int
    tokens: tuple[int, ...]
    part: Part

    @property
    def named(self) -> bool:
        """Whether it is the name of its line, which the sender did not write."""
        return self.start < self.part.content


def words(text: str, tokens: Sequence[tuple[int, int]]) -> list[Word]:
    """The words of a mail text that these tokens make, in their order.

    `tokens` has the two ends of each, rising; a token that stands nowhere is in no word. Of a word
    that was cut in two, each piece is a word.
    """
    found: list[Word] = []
    every = iter(parts(text))
    part = next(every)
    start, end, own = 0, 0, list[int]()
    for number, (first, last) in enumerate(tokens):
        stretch = text[first:last]
        first += len(stretch) - len(stretch.lstrip())
        last = first + len(stretch.strip())
        if first >= last:
            continue
        whole = part.section == "link" and last <= part.end
        if own and (first < end or _joined(text, start, end, first, whole=whole)):
            end = max(end, last)
            own.append(number)
            continue
        if own:
            found.append(_word(text, start, end, own, part, first))
        while first >= part.end and (after := next(every, None)) is not None:
            part = after
        start, end, own = first, last, [number]
    return [*found, _word(text, start, end, own, part, part.end)] if own else found


def _word(text: str, start: int, end: int, tokens: list[int], part: Part, until: int) -> Word:
    # Accents that the tokenizer has dropped.
    while end < min(part.end, until) and _silent(text[end]):
        end += 1
    return Word(start, end, tuple(tokens), part)


def _joined(text: str, start: int, end: int, first: int, *, whole: bool) -> bool:
    """Whether a token from `first` on goes on with the word from `start` to `end`."""
    if not all(map(_silent, text[end:first])):
        return False
    if whole:
        return True
    last, one = text[end - 1], text[first]
    if _letter(one):
        return _letter(last) or (last in _JOINERS and end - start > 1 and _letter(text[end - 2]))
    return one in _JOINERS and _letter(last) and _letter(text[first + 1 : first + 2])


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """The first letter of its general category (Unicode)."""
    return unicodedata.category(character)[0]


def _silent(character: str) -> bool:
    """Whether it is a mark or a control, of which a tokenizer may make nothing."""
    return _kind(character) in "MC" and not character.isspace()


@lru_cache(maxsize=4096)
def _letter(character: str) -> bool:
    """Whether words are made of it; an ideograph is a word by itself."""
    if not character or unicodedata.name(character, "").startswith("CJK"):
        return False
    return _kind(character) in "LN" or _silent(character)
