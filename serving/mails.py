"""Mails as clients send them: JSON fields, a message as a string, or its bytes; one or many."""

import base64
import binascii
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from serving import payload
from serving.errors import ApiError
from training.mail import Mail, MailError, MailTextOptions, mail_text, render

_HALVES: Final = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)
"""Of characters that JSON spells in two."""

EXAMPLE: Final = "From: Ann <ann@example.org>\r\nSubject: Lunch\r\n\r\nAt noon?\r\n"


def _without_surrogates(value: Any) -> Any:
    """JSON can spell half a character (`\\ud800`), which is no text; mail text drops it as well."""
    return value.encode("utf-8", "ignore").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_without_surrogates)]


def _shape(example: dict[str, Any], **schema: Any) -> ConfigDict:
    return ConfigDict(
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [example], **schema},
    )


class MailParts(BaseModel):
    """A mail whose parts are known; at least one of them is not blank."""

    model_config = _shape(
        {"subject": "Lunch", "from": "Ann <ann@example.org>", "body": "At noon?"},
        anyOf=[
            {"required": [name], "properties": {name: {"type": "string", "pattern": r"\S"}}}
            for name in ("subject", "from", "body")
        ],
    )

    subject: Text = ""
    """Decoded, without 'Subject:'."""
    sender: Text = Field(default="", alias="from")
    """Name and address, as `Ann <ann@example.org>`."""
    body: Text = ""
    """Plain text."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.subject.strip() or self.sender.strip() or self.body.strip()):
            raise ValueError("one of subject, from and body must not be blank, or send raw")
        return self


class RawMail(BaseModel):
    """A whole RFC 5322 message as one string; bytes that are not UTF-8 go as `raw_base64`."""

    model_config = _shape({"raw": EXAMPLE})

    raw: Text = Field(json_schema_extra={"format": "rfc5322"})
    """Header lines, a blank line, and the body."""


class EncodedMail(BaseModel):
    """A whole RFC 5322 message, byte for byte."""

    model_config = _shape({"raw_base64": base64.b64encode(EXAMPLE.encode()).decode()})

    raw_base64: str = Field(json_schema_extra={"format": "byte"})
    """In the base64 of RFC 4648, padded, without line ends."""


def _kind(given: Any) -> str:
    names = given if isinstance(given, Mapping) else ()
    return next((f"<{name}>" for name in ("raw", "raw_base64") if name in names), "<fields>")


AnyMail = Annotated[
    Annotated[MailParts, Tag("<fields>")]
    | Annotated[RawMail, Tag("<raw>")]
    | Annotated[EncodedMail, Tag("<raw_base64>")],
    Discriminator(_kind),
]
"""As its own field names say; `payload.faults` leaves out what stands in brackets."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text that the model reads of one mail."""

    text: str
    ms: float
    """How long that took."""
    began: float
    """When it began, by `time.monotonic`."""


def one(body: bytes, media: str, options: MailTextOptions) -> Parsed:
    """The only mail of a body of type `media`.

    Raises:
        ApiError: it is malformed, has wrong fields, or is no mail.
    """
    start = time.monotonic()
    mail = _of_tree(payload.tree(body)) if media == payload.JSON else body
    return _parsed(mail, options, start)


def original(body: bytes, media: str, options: MailTextOptions) -> tuple[str, Mail | None]:
    """The text of the only mail of a body, and the mail if its fields were sent as they are.

    Of a message there is none, nor of fields with half a character, which was left out of them.

    Raises:
        ApiError: as `one`.
    """
    mail = _of_tree(payload.tree(body)) if media == payload.JSON else body
    whole = not isinstance(mail, bytes) and not _HALVES.search(body)
    return text_of(mail, options), mail if whole and not isinstance(mail, bytes) else None


def one_or_many(
    body: bytes, media: str, options: MailTextOptions, most: int
) -> Parsed | list[Parsed | ApiError]:
    """The mail of a body, or those in its `mails`; a bad one of many leaves its error there.

    Raises:
        ApiError: the body as a whole, or its one mail, cannot be used; or there are more than
            `most`.
    """
    if media != payload.JSON:
        return one(body, media, options)
    start = time.monotonic()
    tree = payload.tree(body)
    if not (isinstance(tree, Mapping) and "mails" in tree):
        return _parsed(_of_tree(tree), options, start)
    payload.require_fields(tree, {"mails"})
    many = tree["mails"]
    if not isinstance(many, list) or not 1 <= len(many) <= most:
        got = f"{len(many):,}" if isinstance(many, list) else "no list"
        raise ApiError("invalid_fields", f"mails: a list of 1 to {most:,} mails, got {got}")
    found: list[Parsed | ApiError] = []
    for each in many:
        start = time.monotonic()
        try:
            found.append(_parsed(_of_tree(each), options, start))
        except ApiError as error:
            found.append(error)
    return found


def decoded(encoded: str, where: str) -> bytes:
    """The bytes of a base64 string.

    Raises:
        ApiError: it is none.
    """
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise ApiError("invalid_fields", f"{where}: is not base64") from error


def text_of(mail: bytes | Mail, options: MailTextOptions) -> str:
    """What the model reads of a mail.

    Raises:
        ApiError: it is none.
    """
    try:
        return mail_text(mail, options) if isinstance(mail, bytes) else render(mail)
    except MailError as error:
        raise ApiError("not_a_mail", str(error)) from error


def _parsed(mail: bytes | Mail, options: MailTextOptions, start: float) -> Parsed:
    text = text_of(mail, options)
    return Parsed(text, (time.monotonic() - start) * 1000, start)


def _of_tree(tree: Any) -> bytes | Mail:
    if not isinstance(tree, Mapping):
        raise ApiError("invalid_fields", "a mail must be an object with the fields of one")
    try:
        if "raw" in tree:
            return RawMail.model_validate(tree).raw.encode()
        if "raw_base64" in tree:
            return decoded(EncodedMail.model_validate(tree).raw_base64, "raw_base64")
        mail = MailParts.model_validate(tree)
    except ValidationError as error:
        raise ApiError("invalid_fields", payload.faults(error)) from error
    return Mail(mail.subject, mail.sender, mail.body)
