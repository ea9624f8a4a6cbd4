"""Request bodies: from untrusted bytes to a JSON tree, or a typed error."""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from serving.account import account
from serving.errors import ApiError

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
_KIND: Final = re.compile("<[a-z_0-9]+>")
_OWN_NAME: Final = re.compile(r"[a-z_0-9.\[\]]{0,80}")
"""The rest may be a client's words, as keys of an object are."""


def content_type(request: Request, allowed: Collection[str]) -> str:
    """The media type of a request, without parameters.

    Raises:
        ApiError: it is not among those allowed.
    """
    header = request.headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    if media not in allowed:
        got = f"got {shown(header)}" if header else "there is none"
        raise ApiError(
            "unsupported_content_type", f"Content-Type must be {' or '.join(allowed)}, {got}"
        )
    return media


async def read(
    request: Request, limit: int, timeout_s: float | None, take: Callable[[int], None]
) -> bytes:
    """The whole body. One that says it is too large is refused unread; since Content-Length may be
    absent or a lie, bytes are counted as they arrive, too, and `take` is told of each part.

    Raises:
        ApiError: it has more than `limit` bytes, or is not there after `timeout_s`; or `take`'s.
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
                take(len(part))
                parts.append(part)
            account().bytes_in = size
    except TimeoutError as error:
        raise ApiError("too_slow", f"the body was not there after {timeout_s:g} s") from error
    return b"".join(parts)


def tree(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        ApiError: it is not JSON, or one of its objects has a field twice: which of the two a
            reader sees would be chance.
    """
    _refuse_much_structure(body)
    try:
        return json.loads(
            body.decode("utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_object
        )
    except UnicodeDecodeError as error:
        raise ApiError("malformed_json", f"the body is not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise ApiError("malformed_json", "the body is nested too deeply") from error
    except ValueError as error:
        raise ApiError("malformed_json", f"the body is not JSON: {error}") from error


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; raises ApiError."""
    found = tree(body)
    if not isinstance(found, dict):
        raise ApiError("invalid_fields", "the body must be an object with named fields")
    return found


def validated(kind: type[ModelT], fields: Mapping[str, Any]) -> ModelT:
    """The fields of an object, checked; raises ApiError, which names each fault."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ApiError("invalid_fields", faults(error)) from error


def require_fields(tree: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse other fields than those allowed."""
    unknown = [f"{shown(name)}: no such field" for name in tree if name not in allowed]
    if unknown:
        raise ApiError("invalid_fields", _joined(unknown))


def faults(error: ValidationError) -> str:
    """What is wrong with which fields, in one line; nothing of what they hold."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        # Which one of a union it is taken for is no name that a client has given.
        name = ".".join(part for part in map(str, item["loc"]) if not _KIND.fullmatch(part))
        where = (name if _OWN_NAME.fullmatch(name) else shown(name)) or "the body"
        if item["type"] == "extra_forbidden":
            found.append(f"{shown(name)}: no such field")
        elif item["type"] == "value_error":
            found.append(item["msg"].removeprefix("Value error, "))
        elif item["type"] == "model_type":
            found.append(f"{where}: must be an object with named fields")
        else:
            found.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return _joined(found)


def shown(name: str) -> str:
    """A client's own words, cut, and in ASCII: they may hold what UTF-8 cannot."""
    return ascii(name[:_SHOWN_CHARS])


def _joined(found: list[str]) -> str:
    more = len(found) - _SHOWN_FAULTS
    return "; ".join(found[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")


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
    tree: dict[str, Any] = {}
    for name, value in pairs:
        key = name.encode("utf-8", "backslashreplace").decode()
        if key in tree:
            raise ApiError("invalid_fields", f"{shown(key)}: given more than once")
        tree[key] = value
    return tree
