"""Disguises: what senders do to a mail so that a filter reads something else than a person.

    for name in DISGUISES:
        letter = disguised(name, opened(raw, None, options), id)

Each is a pure function of a letter and of chance that its id seeds: the same mail is disguised in
the same way on every machine, and ham as spam is. Links, tags and addresses stay whole unless they
are what is changed; so does the subject, but where words are misspelled.
"""

import random
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from training.letters import Letter
from training.mime import Part
from training.stretches import LINK, around, as_page, begun, ending, of_texts

SHARE: Final = 0.5
"""Of the words of four letters and more, those that are misspelled."""
KEPT: Final = 300
"""Characters that truncation leaves."""

_WORD: Final = re.compile(r"[A-Za-z]{4,}")
_LOOK_ALIKES: Final = str.maketrans(
    "ABCEHIKMOPTXaceiopxyj",
    "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425"
    "\u0430\u0441\u0435\u0456\u043e\u0440\u0445\u0443\u0458",
)
_LEET: Final = str.maketrans("aeiostlAEIOST", "4310571431057")
_INVISIBLE: Final = "\u200b\u200c\u2060\u00ad"
_BETWEEN: Final = " .-_*"
_HOSTS: Final = ("bit.ly", "tinyurl.com", "is.gd", "ow.ly", "t.co")
_CODE: Final = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_GOOD: Final = (
    "Thanks for your quick reply, I will look at the patch tonight.",
    "The minutes of the last meeting are on the wiki, please correct what I got wrong.",
    "Could you review the second chapter before we talk on Thursday?",
    "The build failed again on the old compiler, I have attached the log below.",
    "My sister is coming to visit next week, so I shall be at home in the afternoon.",
    "As discussed on the phone, the invoice was paid on the fourth.",
    "I moved the seminar to room twelve because the projector there works.",
    "The children liked the book that you sent, many thanks from all of us.",
    "On Tuesday I wrote that the kernel module leaks memory, and it still does.",
    "Let me know whether the train at eight or the one at nine suits you better.",
    "He said that the article was accepted with minor changes.",
    "We should update the documentation before the next release.",
)
_DISCLAIMER: Final = (
    "This message and any attachment are confidential and intended solely for the use of the "
    "individual or entity to whom they are addressed. If you have received it in error, please "
    "notify the sender immediately and delete it from your system. You must not copy, distribute "
    "or disclose its contents. Any views expressed are those of the author and do not necessarily "
    "represent those of the company. The company accepts no liability for any damage caused by "
    "any virus transmitted by this message."
)


class Disguise(NamedTuple):
    """A way to change a mail."""

    about: str
    change: Callable[[Letter, random.Random], Letter]


def disguised(name: str, letter: Letter, id_: str) -> Letter:
    """A letter under the disguise of that name in DISGUISES."""
    return DISGUISES[name].change(letter, random.Random(f"{name}\0{id_}"))


def _look_alikes(letter: Letter, chance: random.Random) -> Letter:
    return _misspelled(letter, chance, lambda word: word.translate(_LOOK_ALIKES))


def _zero_width(letter: Letter, chance: random.Random) -> Letter:
    return _misspelled(letter, chance, lambda word: _cut(word, chance.choice(_INVISIBLE), chance))


def _split_words(letter: Letter, chance: random.Random) -> Letter:
    between = chance.choice(_BETWEEN)
    return _misspelled(letter, chance, between.join)


def _leetspeak(letter: Letter, chance: random.Random) -> Letter:
    return _misspelled(letter, chance, lambda word: word.translate(_LEET))


def _comments(letter: Letter, chance: random.Random) -> Letter:
    def commented(text: str) -> str:
        return _WORD.sub(lambda word: _some(word[0], chance, inside), text)

    def inside(word: str) -> str:
        return _cut(word, f"<!-- {''.join(chance.choices(_CODE, k=6))} -->", chance)

    return of_texts(as_page(letter), commented)


def _hidden_text(letter: Letter, chance: random.Random) -> Letter:
    page = as_page(letter)
    first, last = _good(chance), _good(chance)
    above = f'<div style="display:none">{first}</div>'
    below = f'<font color="#ffffff">{last}</font>'
    return page.holding([around(part, above, below) for part in page.parts])


def _good_words(letter: Letter, chance: random.Random) -> Letter:
    return ending(letter, _good(chance))


def _image_only(letter: Letter, chance: random.Random) -> Letter:
    number = chance.randrange(10**6)
    page = f'<html><body><img src="cid:{number}@example.com"></body></html>'
    image = Part("image/gif", f"image{number}.gif", None, "")
    others = [part for part in letter.parts if part.text is None]
    return letter.holding([Part("text/html", "", page, ""), image, *others])


def _upper_case(letter: Letter, chance: random.Random) -> Letter:
    return of_texts(letter.entitled(letter.subject.upper()), str.upper)


def _lower_case(letter: Letter, chance: random.Random) -> Letter:
    return of_texts(letter.entitled(letter.subject.lower()), str.lower)


def _short_links(letter: Letter, chance: random.Random) -> Letter:
    host = chance.choice(_HOSTS)
    known: dict[str, str] = {}

    def short(link: re.Match[str]) -> str:
        code = "".join(chance.choices(_CODE, k=7))
        return known.setdefault(link[0], f"https://{host}/{code}")

    return letter.holding(
        [part._replace(text=LINK.sub(short, part.text)) if part.text else part
         for part in letter.parts]
    )  # fmt: skip


def _truncation(letter: Letter, chance: random.Random) -> Letter:
    return letter.holding([begun(part, KEPT) for part in letter.parts])


def _disclaimer(letter: Letter, chance: random.Random) -> Letter:
    return ending(letter, _DISCLAIMER)


DISGUISES: Final = {
    "look-alike letters": Disguise("Cyrillic letters for Latin ones", _look_alikes),
    "zero-width characters": Disguise("characters without width inside words", _zero_width),
    "split words": Disguise("letters apart, as in V I A G R A", _split_words),
    "leetspeak": Disguise("digits for letters, as in v14gr4", _leetspeak),
    "HTML comments": Disguise("comments inside words; plain mail becomes HTML", _comments),
    "hidden text": Disguise("good words that HTML does not show, around the text", _hidden_text),
    "good words": Disguise("eight innocent sentences at the end", _good_words),
    "image only": Disguise("a picture in place of all text; the subject stays", _image_only),
    "upper case": Disguise("ALL LETTERS LARGE", _upper_case),
    "lower case": Disguise("all letters small", _lower_case),
    "short links": Disguise("each link behind a link shortener", _short_links),
    "truncation": Disguise(f"the first {KEPT} characters alone", _truncation),
    "disclaimer": Disguise("a company's legal footer at the end", _disclaimer),
}
"""All of them by name."""


def _misspelled(letter: Letter, chance: random.Random, spell: Callable[[str], str]) -> Letter:
    """With some of the longer words of subject and text spelled otherwise."""

    def change(text: str) -> str:
        return _WORD.sub(lambda word: _some(word[0], chance, spell), text)

    return of_texts(letter.entitled(change(letter.subject)), change)


def _some(word: str, chance: random.Random, change: Callable[[str], str]) -> str:
    return change(word) if chance.random() < SHARE else word


def _cut(word: str, between: str, chance: random.Random) -> str:
    at = chance.randrange(1, len(word))
    return word[:at] + between + word[at:]


def _good(chance: random.Random) -> str:
    return " ".join(chance.sample(_GOOD, 8))
