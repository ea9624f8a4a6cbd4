"""Clues: what a mail's fact lines say, in words for a person.

    >>> says("reply-to", "freemail.example")
    'Reply-To has another domain than From: freemail.example'

The lines are those at the top of `training/mail.py`. What a mail says of itself is quoted as it is:
whoever shows it escapes it.
"""

import re
from typing import Final

from serving.spans import Section

_TRICKS: Final = {
    "hidden": "text that a reader does not see",
    "split": "words split by markup",
    "zw": "invisible characters",
    "mixed": "words of mixed alphabets",
    "styled": "styled letters in place of plain ones",
}
_TRICK: Final = re.compile(r"(\w+) (\d+)")


def says(section: Section, line: str) -> str | None:
    """A fact line, without its name, in words; None for what is no fact: subject, from, body."""
    match section:
        case "reply-to":
            where = "" if line == "differs" else f": {line}"
            return f"Reply-To has another domain than From{where}"
        case "list":
            return "Sent through a mailing list"
        case "tricks":
            found = [(_TRICKS.get(name, name), number) for name, number in _TRICK.findall(line)]
            told = [f"{what} ({'once' if n == '1' else f'{n} times'})" for what, n in found]
            return f"Tricks with letters: {', '.join(told)}"
        case "attachments":
            return f"Attached: {line}"
        case "link mismatch":
            pairs = line.replace(" -> ", " leads to ")
            return f"Link text and target differ: {pairs}"
        case "links":
            number, _, hosts = line.partition(" to ")
            return f"{number} link{'s' * (number != '1')}, to {hosts}"
        case "charset":
            return f"Charset is wrong or unknown: {line}"
        case "format":
            images = line.removeprefix("html only").removeprefix(", ")
            page = "HTML without a plain version" if line.startswith("html only") else ""
            shown = f"{'with' if page else 'With'} {images}" if images else ""
            return ", ".join(filter(None, [page, shown]))
        case "date":
            return f"Date: {line}"
        case "received":
            return f"Received {line}"
        case _:
            return None
