"""Request bodies: from untrusted bytes to a JSON tree, or a typed error."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from starlette.requests import Request

from serving.errors import ApiError

JSON: Final = "application/json"
RFC822: Final = "message/rfc822"
BYTES: Final = "application/octet-stream"

_SHOWN_FAULTS: Final = 5
_SHOWN_CHARS: Final = 80
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


def tree(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        ApiError: it is not JSON, or one of its objects has a field twice: which of the two a
            reader sees would be chance.
    """
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


def require_fields(tree: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse other fields than those allowed."""
    unknown = [f"{shown(name)}: no such field" for name in tree if name not in allowed]
    if unknown:
        raise ApiError("invalid_fields", _joined(unknown))


def faults(error: ValidationError) -> str:
    """What is wrong with which fields, in one line; nothing of what they hold."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(map(str, item["loc"]))
        where = (name if _OWN_NAME.fullmatch(name) else shown(name)) or "the body"
        if item["type"] == "extra_forbidden":
            found.append(f"{shown(name)}: no such field")
        elif item["type"] == "value_error":
            found.append(item["msg"].removeprefix("Value error, "))
        else:
            found.append(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return _joined(found)


def shown(name: str) -> str:
    """A client's own words, cut, and in ASCII: they may hold what UTF-8 cannot."""
    return ascii(name[:_SHOWN_CHARS])


def _joined(found: list[str]) -> str:
    more = len(found) - _SHOWN_FAULTS
    return "; ".join(found[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")


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
