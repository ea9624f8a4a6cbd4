"""Stretches: the text of a letter that a person reads, changed with all that stands between left.

Of HTML these are tags, comments, scripts, entities; of any text links and addresses, since they
would lead nowhere if they were spelled otherwise.
"""

import html
import re
from collections.abc import Callable, Iterator
from typing import Final

from training.letters import Letter
from training.markup import MAX_HTML_CHARS
from training.mime import Part, is_page
from training.prose import without_list_footer

LINK: Final = re.compile(r"https?://[^\s\"'<>]+", re.I)
_WHOLE: Final = re.compile(LINK.pattern + r"|[^\s<>\"']{1,64}@[^\s<>\"']{1,255}", re.I)
_UNSEEN: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(style|script|title)\b.*?(?:</\1\b[^>]*>|\Z)|<[a-z/!?][^>]*(?:>|\Z)|"
    r"&#?\w{1,32};|" + _WHOLE.pattern,
    re.I | re.S,
)
"""What is left open reaches to the end, as in browsers; so nothing is looked through twice."""
_BODY: Final = re.compile(r"<body\b[^>]*>", re.I)
_BODY_END: Final = re.compile(r"</(?:body|html)\b", re.I)


def of_texts(letter: Letter, change: Callable[[str], str]) -> Letter:
    """With each stretch of its text changed."""

    def changed(part: Part) -> Part:
        pieces = (change(piece) if free else piece for piece, free in _pieces(part))
        return part if part.text is None else part._replace(text="".join(pieces))

    return letter.holding([changed(part) for part in letter.parts])


def begun(part: Part, chars: int) -> Part:
    """The first characters of a part; tags are not counted, and stay."""
    kept = []
    for piece, free in _pieces(part):
        if not free and piece.startswith("<"):
            kept.append(piece)
        else:
            kept.append(piece[:chars])
            chars -= len(kept[-1])
    return part if part.text is None else part._replace(text="".join(kept))


def ending(letter: Letter, words: str) -> Letter:
    """With words below its text."""
    if all(part.text is None for part in letter.parts):
        return letter.holding([*letter.parts, Part("text/plain", "", words, "")])
    return letter.holding([around(part, "", words) for part in letter.parts])


def around(part: Part, above: str, below: str) -> Part:
    """With more above and below its text; for HTML both may be HTML."""
    if part.text is None:
        return part
    if not is_page(part.kind, part.text):
        own = without_list_footer(part.text)  # a list's software writes below the sender
        return part._replace(text=f"{above}{own}\n\n{below}\n{part.text[len(own) :]}")
    below = f"<p>{below}</p>"
    text = part.text[: MAX_HTML_CHARS - len(above) - len(below)]
    first, last = _BODY.search(text), _BODY_END.search(text)
    start = first.end() if first else 0
    end = max(last.start() if last else len(text), start)
    return part._replace(text=text[:start] + above + text[start:end] + below + text[end:])


def as_page(letter: Letter) -> Letter:
    """As HTML alone: only a page can show something else than it says."""
    shown = [part for part in letter.parts if part.text is not None]
    pages = [part for part in shown if is_page(part.kind, part.text or "")]
    others = [part for part in letter.parts if part.text is None]
    return letter.holding([*(pages or map(_page, shown)), *others])


def _page(part: Part) -> Part:
    lines = html.escape(part.text or "", quote=False).replace("\n", "<br>\n")
    return Part("text/html", part.name, f"<html><body>{lines}</body></html>", part.fault)


def _pieces(part: Part) -> Iterator[tuple[str, bool]]:
    """All of a part's text in pieces, and whether each is free to be changed."""
    if part.text is None:
        return
    page = is_page(part.kind, part.text)
    text = part.text[:MAX_HTML_CHARS] if page else part.text
    at = 0
    for fixed in (_UNSEEN if page else _WHOLE).finditer(text):
        yield text[at : fixed.start()], True
        yield fixed[0], False
        at = fixed.end()
    yield text[at:], True
