"""Request bodies: from untrusted bytes to the text that the model reads, or a typed error."""

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from serving.errors import ApiError
from training.mail import Mail, MailError, MailTextOptions, mail_text, render

JSON: Final = "application/json"
RFC822: Final = "message/rfc822"
BYTES: Final = "application/octet-stream"

_SHOWN_FAULTS: Final = 5
_SHOWN_CHARS: Final = 80
_HALVES: Final = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
)
"""Of characters that JSON spells in two."""


def _without_surrogates(value: Any) -> Any:
    """JSON can spell half a character (`\\ud800`), which is no text; mail text drops it as well."""
    return value.encode("utf-8", "ignore").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_without_surrogates)]


class MailParts(BaseModel):
    """A mail whose parts are known; at least one of them is not blank."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

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
    """A whole RFC 5322 message as one string; bytes that are not UTF-8 go as message/rfc822."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    raw: Text
    """Header lines, a blank line, and the body."""


def content_type(request: Request, allowed: Collection[str]) -> str:
    """The media type of a request, without parameters.

    Raises:
        ApiError: it is not among those allowed.
    """
    header = request.headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    if media not in allowed:
        got = f"got {_shown(header)}" if header else "there is none"
        raise ApiError(
            "unsupported_content_type", f"Content-Type must be {' or '.join(allowed)}, {got}"
        )
    return media


async def read(request: Request, limit: int) -> bytes:
    """The whole body, counted as it arrives: Content-Length may be absent or a lie.

    Raises:
        ApiError: it has more than `limit` bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ApiError("too_large", f"the body has more than {limit:,} bytes")
        parts.append(part)
    return b"".join(parts)


def text(media: str, body: bytes, options: MailTextOptions) -> str:
    """The mail text, with `options`, of a body of type `media`.

    Raises:
        ApiError: it is malformed, has wrong fields, or is no mail.
    """
    content = _from_json(body) if media == JSON else body
    try:
        return mail_text(content, options) if isinstance(content, bytes) else render(content)
    except MailError as error:
        raise ApiError("not_a_mail", str(error)) from error


def original(media: str, body: bytes, options: MailTextOptions) -> tuple[str, Mail | None]:
    """As `text`, and the mail if its fields were sent as they are; None for a message.

    Of fields with half a character, which was left out of them, there is none as well.
    """
    content = _from_json(body) if media == JSON else body
    try:
        if isinstance(content, bytes):
            return mail_text(content, options), None
        return render(content), None if _HALVES.search(body) else content
    except MailError as error:
        raise ApiError("not_a_mail", str(error)) from error


def _from_json(body: bytes) -> bytes | Mail:
    try:
        tree = json.loads(
            body.decode("utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_object
        )
    except UnicodeDecodeError as error:
        raise ApiError("malformed_json", f"the body is not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise ApiError("malformed_json", "the body is nested too deeply") from error
    except ValueError as error:
        raise ApiError("malformed_json", f"the body is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ApiError("invalid_fields", "the body must be an object with the fields of a mail")
    try:
        if "raw" in tree:
            return RawMail.model_validate(tree).raw.encode()
        mail = MailParts.model_validate(tree)
    except ValidationError as error:
        raise ApiError("invalid_fields", _faults(error)) from error
    return Mail(mail.subject, mail.sender, mail.body)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values of one field: which one a reader sees would be chance, so neither."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        key = name.encode("utf-8", "backslashreplace").decode()
        if key in tree:
            raise ApiError("invalid_fields", f"{_shown(key)}: given more than once")
        tree[key] = value
    return tree


def _faults(error: ValidationError) -> str:
    faults = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            faults.append(f"{_shown(where)}: no such field")
        elif item["type"] == "value_error":
            faults.append(item["msg"].removeprefix("Value error, "))
        else:
            faults.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}")
    more = len(faults) - _SHOWN_FAULTS
    return "; ".join(faults[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def _shown(name: str) -> str:
    """A client's own words, cut, and in ASCII: they may hold what UTF-8 cannot."""
    return ascii(name[:_SHOWN_CHARS])
