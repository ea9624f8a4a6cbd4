"""Everything the API can refuse, in one table: the kind of an error decides its status.

Each answer that is no success is {"error": {"code": "...", "message": "..."}}; below /v2, as the
Open Inference Protocol wants it, {"error": "code: message"}.
"""

import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.account import account
from serving.answers import ErrorBody, ErrorDetail, InferenceError

log = logging.getLogger(__name__)

_MAX_CAUSES: Final = 5
_MAX_FRAMES: Final = 12

Code = Literal[
    "malformed_json",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "invalid_tensor",
    "unauthorized",
    "forbidden",
    "not_found",
    "unknown_model",
    "method_not_allowed",
    "too_slow",
    "conflict",
    "too_large",
    "unsupported_content_type",
    "invalid_fields",
    "overloaded",
    "rate_limited",
    "headers_too_large",
    "internal",
    "not_explainable",
    "not_ready",
    "deadline_exceeded",
    "feedback_unavailable",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of error is answered."""

    status: int
    meaning: str
    headers: Mapping[str, str] = field(default_factory=dict)


KINDS: Final[Mapping[Code, Kind]] = {
    "malformed_json": Kind(400, "The body is not JSON."),
    "not_a_mail": Kind(400, "The bytes are empty or of another kind of file."),
    "incomplete": Kind(400, "The client went away before its request was complete."),
    "invalid_header": Kind(400, "A header has a value that it cannot have."),
    "invalid_tensor": Kind(400, "An input or output is none that the model has."),
    "unauthorized": Kind(
        401, "No valid token came with it.", {"WWW-Authenticate": 'Bearer realm="mailray"'}
    ),
    "forbidden": Kind(403, "The caller may not do this."),
    "not_found": Kind(404, "There is nothing at this path."),
    "unknown_model": Kind(404, "No such model, or no such version of it, answers here."),
    "method_not_allowed": Kind(405, "This path has other methods."),
    "too_slow": Kind(408, "The body did not arrive in time.", {"Connection": "close"}),
    "conflict": Kind(409, "It contradicts what is stored."),
    "too_large": Kind(413, "The body is larger than this server takes."),
    "unsupported_content_type": Kind(415, "The body is of a type that this path does not read."),
    "invalid_fields": Kind(422, "Fields are missing, unknown or of the wrong type."),
    "overloaded": Kind(429, "As many mails as allowed are being worked on.", {"Retry-After": "1"}),
    "rate_limited": Kind(429, "More requests than this token may send.", {"Retry-After": "1"}),
    "headers_too_large": Kind(431, "The header lines are larger than this server takes."),
    "internal": Kind(500, "A fault of the server; its log has the cause."),
    "not_explainable": Kind(501, "The model that answers cannot give its reasons."),
    "not_ready": Kind(503, "The server is starting or shutting down.", {"Retry-After": "1"}),
    "feedback_unavailable": Kind(
        503, "The store of feedback does not answer; nothing was kept.", {"Retry-After": "5"}
    ),
    "deadline_exceeded": Kind(504, "There was no verdict within the request's time."),
}


class ApiError(Exception):
    """A request is answered with an error of the table; `headers` go before the table's."""

    def __init__(self, code: Code, message: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.headers = headers


def answers(*codes: Code, inference: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that can refuse for these reasons, each with an example.

    `inference` is for routes of the Open Inference Protocol, whose errors have another shape.
    """
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        line = f"`{code}`: {kind.meaning}"
        answer = found.setdefault(
            kind.status,
            {
                "model": InferenceError if inference else ErrorBody,
                "description": "",
                "content": {"application/json": {"examples": {}}},
            },
        )
        answer["description"] = f"{answer['description']} {line}".strip()
        examples = answer["content"]["application/json"]["examples"]
        examples[code] = {"value": _body(code, kind.meaning, inference).model_dump()}
        if kind.headers:
            text = {"schema": {"type": "string"}}
            answer["headers"] = dict.fromkeys(kind.headers, text)
    return found


def install(app: FastAPI) -> None:
    """Answer every error of `app` in its path's shape; after other middleware that may fail."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return answer(error, request.url.path)

    async def unrouted(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code: Code = "method_not_allowed" if error.status_code == 405 else "not_found"
        return answer(ApiError(code, KINDS[code].meaning, error.headers or {}), request.url.path)

    async def gone(request: Request, error: Exception) -> JSONResponse:
        return answer(ApiError("incomplete", KINDS["incomplete"].meaning), request.url.path)

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_middleware(Faults)


def answer(error: ApiError, path: str) -> JSONResponse:
    """The response to a request of `path` that is refused."""
    account().code = error.code
    kind = KINDS[error.code]
    inference = re.match(r"/v2(?:/|$)", path) is not None
    body = _body(error.code, error.message, inference).model_dump()
    return JSONResponse(body, kind.status, {**kind.headers, **error.headers})


def _body(code: Code, message: str, inference: bool) -> BaseModel:
    if inference:
        return InferenceError(error=f"{code}: {message}")
    return ErrorBody(error=ErrorDetail(code=code, message=message))


class Faults:
    """A middleware: a fault of the server is answered 500, and logged without what it says.

    The message of an exception may quote the mail that it is about, and whatever passes this by is
    logged with its message by the server, by Ray Serve and by asyncio.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and end its faults here."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            log.error("a request failed: %s", described(error))
            if scope["type"] == "http" and not started:
                broken = ApiError("internal", KINDS["internal"].meaning)
                await answer(broken, scope["path"])(scope, receive, send)


def described(error: BaseException) -> str:
    """The types of an exception and of its causes, and where each arose; never a message."""
    lines: list[str] = []
    links: BaseException | None = error
    while links is not None and len(lines) < _MAX_CAUSES:
        frames = traceback.extract_tb(links.__traceback__)[-_MAX_FRAMES:]
        places = (f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        lines.append(f"{type(links).__name__} at {' > '.join(places)}")
        links = links.__cause__ or links.__context__
    return ", after ".join(lines)
