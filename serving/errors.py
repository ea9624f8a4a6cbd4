"""Everything the API can refuse, in one table: the kind of an error decides its status.

Each answer that is no success is {"error": {"code": "...", "message": "..."}}; below /v2, as the
Open Inference Protocol wants it, {"error": "code: message"}.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving.answers import ErrorBody, ErrorDetail, InferenceError
from serving.request_ids import HEADER

Code = Literal[
    "malformed_json",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "invalid_tensor",
    "not_found",
    "unknown_model",
    "method_not_allowed",
    "too_large",
    "unsupported_content_type",
    "invalid_fields",
    "overloaded",
    "internal",
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
    "invalid_tensor": Kind(400, "An input or output is none that the model has."),
    "not_found": Kind(404, "There is nothing at this path."),
    "unknown_model": Kind(404, "No such model, or no such version of it, answers here."),
    "method_not_allowed": Kind(405, "This path has other methods."),
    "too_large": Kind(413, "The body is larger than this server takes."),
    "unsupported_content_type": Kind(415, "The body is of a type that this path does not read."),
    "invalid_fields": Kind(422, "Fields are missing, unknown or of the wrong type."),
    "overloaded": Kind(429, "As many mails as allowed are being worked on.", {"Retry-After": "1"}),
    "internal": Kind(500, "A fault of the server; its log has the cause."),
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
    """Answer every error of `app` in the shape of its path."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return _answer(request, error.code, error.message, error.headers)

    async def unrouted(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code: Code = "method_not_allowed" if error.status_code == 405 else "not_found"
        return _answer(request, code, KINDS[code].meaning, error.headers or {})

    async def gone(request: Request, error: Exception) -> JSONResponse:
        return _answer(request, "incomplete", KINDS["incomplete"].meaning)

    async def broken(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error anew after this answer, and the server logs it. It answers
        # outside of all middleware, so that the id has to be added here.
        headers = {HEADER: request.headers.get(HEADER, "")}
        return _answer(request, "internal", KINDS["internal"].meaning, headers)

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, broken)


def _answer(
    request: Request, code: Code, message: str, headers: Mapping[str, str] = {}
) -> JSONResponse:
    kind = KINDS[code]
    inference = re.match(r"/v2(?:/|$)", request.url.path) is not None
    body = _body(code, message, inference).model_dump()
    return JSONResponse(body, kind.status, {**kind.headers, **headers})


def _body(code: Code, message: str, inference: bool) -> BaseModel:
    if inference:
        return InferenceError(error=f"{code}: {message}")
    return ErrorBody(error=ErrorDetail(code=code, message=message))
