"""Excerpts: what a mail says, for a person who may see it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from training.config import DataConfig
from training.home import Home
from training.mail import MailError, parse
from training.originals import originals
from training.prose import one_line

_CHARS: Final = 240


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Subject, sender and first words of a mail, decoded; where it came as text, only those."""

    subject: str
    sender: str
    text: str


def excerpts(data: DataConfig, home: Home, ids: Collection[str]) -> dict[str, Excerpt]:
    """Of the mails of these ids that are still in the source.

    Raises:
        SourceError: there is no such source any more.
    """
    if not ids:
        return {}
    rows = originals(data, home, ids).select_columns(["id", "raw", "text"]).iter_rows()
    return {row["id"]: _excerpt(row["raw"], row["text"]) for row in rows}


def _excerpt(raw: bytes | None, text: str | None) -> Excerpt:
    if raw is None:
        return Excerpt("", "", _first(text or ""))
    try:
        mail = parse(raw)
    except MailError as error:
        return Excerpt("", "", str(error))
    return Excerpt(one_line(mail.subject)[:200], one_line(mail.sender)[:200], _first(mail.body))


def _first(text: str) -> str:
    line = one_line(text[: 10 * _CHARS])
    return line if len(line) <= _CHARS else f"{line[:_CHARS]}…"
