"""Origins: where a word of the mail text stood in the field that the sender gave.

The way from a field to its text squeezes blanks, drops characters, writes plain letters for styled
ones and markers before words (`training.prose`), and cuts out a long one's middle. All of that
keeps the order of what is left, so the two are laid side by side; where anything does not fit
exactly there is no answer, and never a wrong one.
"""

from collections.abc import Callable
from typing import Final

from training import prose
from training.mail import MAX_BODY_CHARS, MAX_FIELD_CHARS, MAX_RAW_BODY_CHARS, Mail

Origin = Callable[[int, int], tuple[int, int] | None]
"""From the two ends of a stretch of a field's text, to those of the same in the field."""
_NOWHERE: Final = -1
_CUT: Final = len(" ... ")


def of_body(mail: Mail) -> Origin:
    """Where in `mail.body` its text, what follows the blank line of a mail text, stood."""
    first = prose.ends(mail.body, MAX_RAW_BODY_CHARS)
    cleaned = prose.clean(first)
    last = prose.ends(cleaned, MAX_BODY_CHARS)
    return _origin(
        mail.body,
        last,
        _of_ends(len(mail.body), MAX_RAW_BODY_CHARS),
        _of_clean(first, cleaned),
        _of_ends(len(cleaned), MAX_BODY_CHARS),
    )


def of_line(field: str) -> Origin:
    """Where in a subject or sender its text, what follows the name of its line, stood."""
    first = field[:MAX_FIELD_CHARS]
    line = prose.one_line(first)
    return _origin(field, line, _of_clean(first, line))


def _origin(field: str, text: str, *stages: list[int] | None) -> Origin:
    """Through stages, each of which says from where in the one before its characters come."""

    def found(start: int, end: int) -> tuple[int, int] | None:
        at = list(range(start, end))
        for stage in reversed(stages):
            if stage is None or _NOWHERE in (at := [stage[i] for i in at]):
                return None
        first, last = at[0], at[-1] + 1
        return (first, last) if _left(field[first:last]) == text[start:end] else None

    return found


def _left(text: str) -> str:
    return "".join(map(prose.remains, text))


def _of_ends(length: int, limit: int) -> list[int]:
    """Of `prose.ends`."""
    if length <= limit:
        return list(range(length))
    tail = limit // 4
    return [*range(tail * 3), *[_NOWHERE] * _CUT, *range(length - tail, length)]


def _of_clean(before: str, after: str) -> list[int] | None:
    """Of `prose.clean` and `prose.one_line`; None where the two cannot be laid side by side."""
    left = [(letter, i) for i, one in enumerate(before) for letter in prose.remains(one)]
    letters = "".join([letter for letter, _ in left])
    if prose.MARKER.search(letters):  # the sender's own words, or a marker? Nobody can tell
        return None
    plain = list(after)
    for marker in prose.MARKER.finditer(after):
        plain[marker.start() : marker.end()] = " " * len(marker[0])
    places = [i for i, one in enumerate(plain) if not one.isspace()]
    if letters != "".join([plain[i] for i in places]):
        return None
    found = [_NOWHERE] * len(after)
    for place, (_, origin) in zip(places, left, strict=True):
        found[place] = origin
    return found
