"""Everything the API can refuse, in one table: the kind of an error decides its status.

Each answer that is no success is {"error": {"code": "...", "message": "..."}}.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

Code = Literal[
    "malformed_json",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "not_found",
    "method_not_allowed",
    "too_large",
    "unsupported_content_type",
    "invalid_fields",
    "overloaded",
    "internal",
    "not_explainable",
    "not_ready",
    "deadline_exceeded",
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
    "not_found": Kind(404, "There is nothing at this path."),
    "method_not_allowed": Kind(405, "This path has other methods."),
    "too_large": Kind(413, "The body is larger than this server takes."),
    "unsupported_content_type": Kind(415, "The body is of a type that this path does not read."),
    "invalid_fields": Kind(422, "Fields are missing, unknown or of the wrong type."),
    "overloaded": Kind(429, "As many mails as allowed are being worked on.", {"Retry-After": "1"}),
    "internal": Kind(500, "A fault of the server; its log has the cause."),
    "not_explainable": Kind(501, "The model that answers cannot give its reasons."),
    "not_ready": Kind(503, "The server is starting or shutting down.", {"Retry-After": "1"}),
    "deadline_exceeded": Kind(504, "There was no verdict within the request's time."),
}


class ApiError(Exception):
    """A request is answered with an error of the table."""

    def __init__(self, code: Code, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        """Instead of those of the table; `retry_after` is in seconds."""


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: Code
    """Stable, for programs."""
    message: str
    """One line, for people."""


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


def answers(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that can refuse for these reasons."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        line = f"`{code}`: {kind.meaning}"
        answer = found.setdefault(kind.status, {"model": ErrorBody, "description": ""})
        answer["description"] = f"{answer['description']} {line}".strip()
        if kind.headers:
            text = {"schema": {"type": "string"}}
            answer["headers"] = dict.fromkeys(kind.headers, text)
    return found


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the one shape."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return _answer(error.code, error.message, error.headers)

    async def unrouted(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code: Code = "method_not_allowed" if error.status_code == 405 else "not_found"
        return _answer(code, KINDS[code].meaning, error.headers or {})

    async def gone(_: Request, error: Exception) -> JSONResponse:
        return _answer("incomplete", KINDS["incomplete"].meaning)

    async def broken(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error anew after this answer, and the server logs it.
        return _answer("internal", KINDS["internal"].meaning)

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, broken)


def _answer(code: Code, message: str, headers: Mapping[str, str] = {}) -> JSONResponse:
    body = ErrorBody(error=ErrorDetail(code=code, message=message))
    kind = KINDS[code]
    return JSONResponse(body.model_dump(), kind.status, {**kind.headers, **headers})
