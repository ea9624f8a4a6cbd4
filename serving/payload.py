"""Request bodies: from untrusted bytes to the text that the model reads, or a typed error."""

import asyncio
import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, NoReturn, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from serving.errors import ApiError
from training.mail import Mail, MailError, MailTextOptions, mail_text, render

JSON: Final = "application/json"
RFC822: Final = "message/rfc822"
BYTES: Final = "application/octet-stream"

ModelT = TypeVar("ModelT", bound=BaseModel)

_MAX_STRUCTURE: Final = 1 << 20
_MAX_ELEMENTS: Final = 100_000
_STRING: Final = re.compile(rb'"(?:[^"\\]++|(?:\\.)++|\\)*+"?', re.DOTALL)
"""Possessive, and matching also a string without an end: linear in whatever comes."""
_SHOWN_FAULTS: Final = 5
_SHOWN_CHARS: Final = 80


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


async def read(request: Request, limit: int, timeout_s: float | None = None) -> bytes:
    """The whole body. One that says it is too large is refused unread; since Content-Length may be
    absent or a lie, bytes are counted as they arrive, too.

    Raises:
        ApiError: it has more than `limit` bytes, or is not there after `timeout_s`.
    """
    too_large = ApiError("too_large", f"the body has more than {limit:,} bytes")
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > limit):
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise ApiError("too_slow", f"the body was not there after {timeout_s:g} s") from error
    return b"".join(parts)


def text(media: str, body: bytes, options: MailTextOptions) -> str:
    """The mail text, with `options`, of a body of type `media`.

    Raises:
        ApiError: it is malformed, has wrong fields, or is no mail.
    """
    content = _mail(json_object(body)) if media == JSON else body
    try:
        return mail_text(content, options) if isinstance(content, bytes) else render(content)
    except MailError as error:
        raise ApiError("not_a_mail", str(error)) from error


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; raises ApiError."""
    _refuse_much_structure(body)
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
        raise ApiError("invalid_fields", "the body must be an object with named fields")
    return tree


def validated(kind: type[ModelT], tree: dict[str, Any]) -> ModelT:
    """The fields of an object, checked; raises ApiError, which names each fault."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ApiError("invalid_fields", _faults(error)) from error


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI request body of a route that reads its JSON itself."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if str(node.get("$ref", "")).startswith("#/$defs/"):
                return resolved(parts[node["$ref"].removeprefix("#/$defs/")])
            return {name: resolved(value) for name, value in node.items()}
        return [resolved(value) for value in node] if isinstance(node, list) else node

    return {"requestBody": {"required": True, "content": {JSON: {"schema": resolved(schema)}}}}


def _mail(tree: dict[str, Any]) -> bytes | Mail:
    if "raw" in tree:
        return validated(RawMail, tree).raw.encode()
    mail = validated(MailParts, tree)
    return Mail(mail.subject, mail.sender, mail.body)


def _refuse_much_structure(body: bytes) -> None:
    """The JSON of mails is strings; 32 MB of brackets would be a gigabyte of empty lists."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= _MAX_ELEMENTS:
        return
    quotes = body.count(b'"') - body.count(b'\\"')  # counted first: so many strings take seconds
    if quotes > _MAX_STRUCTURE or len(_STRING.sub(b"", body)) > _MAX_STRUCTURE:
        raise ApiError(
            "malformed_json", f"the JSON has more than {_MAX_STRUCTURE:,} bytes beside its strings"
        )


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
