"""What is kept of one feedback: the one table, `feedback`.

The text of a mail is there only if whoever sent it agreed to that. `migrations` makes the table;
a change here needs a new file in `migrations/versions`.
"""

import base64
import hashlib
from typing import Any, Final

from sqlalchemy import BigInteger, Double, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

MAX_ID: Final = 128
"""Characters of a request's id."""
MAX_MESSAGE_ID: Final = 998
"""A header line's (RFC 5322, 2.1.1)."""


class Base(MappedAsDataclass, DeclarativeBase):
    """The tables."""


class Record(Base, kw_only=True):
    """One feedback. Only its own token has the same `key` twice, so a repeated one is known."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("token", "key", name="feedback_once"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[int] = mapped_column(BigInteger, index=True)
    """Milliseconds since 1970."""
    token: Mapped[str] = mapped_column(String(64))
    """The name of the token that brought it; '' of a server without tokens."""
    key: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(MAX_ID))
    message_id: Mapped[str | None] = mapped_column(String(MAX_MESSAGE_ID))
    label: Mapped[str] = mapped_column(Text)
    """The right one, in the spelling of `training.labels`."""
    given: Mapped[str | None] = mapped_column(Text)
    """The label that the model gave."""
    probability: Mapped[float | None] = mapped_column(Double)
    """Of `given`."""
    model: Mapped[str | None] = mapped_column(String(200))
    version: Mapped[str | None] = mapped_column(String(200))
    store_text: Mapped[bool]
    """Consent to keep the mail."""
    train: Mapped[bool]
    """Consent to train on it."""
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    """A whole message."""
    subject: Mapped[str | None] = mapped_column(Text)
    sender: Mapped[str | None] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)

    def says(self) -> tuple[object, ...]:
        """What another one under the same key must agree in to be the same."""
        return (self.label, self.given, self.model, self.version, self.store_text, self.train)

    @property
    def has_mail(self) -> bool:
        """Whether its mail is kept."""
        return any(part is not None for part in (self.raw, self.subject, self.sender, self.body))

    def mail(self) -> dict[str, Any] | None:
        """Its mail in the columns of `training.readers.columns`; None where none is kept."""
        if self.raw is not None:
            try:
                return {"raw": self.raw.decode()}
            except UnicodeDecodeError:
                return {"raw_base64": base64.b64encode(self.raw).decode()}
        if not self.has_mail:
            return None
        return {"subject": self.subject, "from": self.sender, "body": self.body}


def key(request_id: str | None, message_id: str | None) -> str:
    """By which a repeated feedback is known; of one length, so that any database can index it."""
    said = f"request {request_id}" if request_id is not None else f"message {message_id}"
    return hashlib.sha256(said.encode()).hexdigest()
