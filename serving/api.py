"""The HTTP API: routes over an engine, without Ray.

    POST /v1/classify        JSON (`subject`, `from`, `body`, or `raw`) or message/rfc822
    POST /v1/classify/raw    message/rfc822 or application/octet-stream
    GET  /v1/model, /healthz, /readyz, /docs, /openapi.json

What can be refused, and with which status, stands in `serving.errors`.
"""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol

from fastapi import FastAPI, Request
from pydantic import BaseModel

from serving import payload
from serving.classifier import ModelInfo, Verdict
from serving.errors import ApiError, answers, install
from training.mail import text_options

_ASIDE_BYTES: Final = 64 * 1024
"""Bodies above this are parsed in a thread; for the others the hop costs more than it saves."""

_MAX_ID_CHARS: Final = 128


class Engine(Protocol):
    """What answers: a `Batcher`, or a twin without weights."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def ready(self) -> bool: ...

    async def classify(self, text: str) -> Verdict: ...


class Answer(BaseModel):
    """The verdict on one mail."""

    label: str
    """The most probable label."""
    labels: list[str]
    """That one; where a mail may have several, all of probability 0.5 and above."""
    probability: float
    """Of `label`."""
    scores: dict[str, float]
    """The probability of every label."""
    model: str
    version: str
    request_id: str
    """The request's X-Request-ID, or one made up."""


class Model(BaseModel):
    """The model that answers."""

    name: str
    version: str
    labels: list[str]
    multi_label: bool
    """Whether a mail may have several, or none."""
    mail_text_version: int
    extras: list[str]
    max_length: int
    precision: Literal["bf16", "fp32"]


class Status(BaseModel):
    """The state of the server."""

    status: Literal["ok"] = "ok"


class Permits:
    """How many requests are worked on at once; each takes one before its body is read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A permit for as long as the block runs."""
        if self._taken >= self._limit:
            raise ApiError("overloaded", f"{self._limit} requests are being worked on; try again")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def build_api(engine: Engine, *, max_in_flight: int, max_body_bytes: int) -> FastAPI:
    """The ASGI application over an engine."""
    app = FastAPI(
        title="mailray",
        summary="Classifies e-mail.",
        version="1",
        responses=answers("internal"),
    )
    install(app)
    permits = Permits(max_in_flight)
    options = text_options(engine.model.extras)

    def require_ready() -> None:
        if not engine.ready:
            raise ApiError("not_ready", "the model is not ready")

    async def answer(request: Request, allowed: Sequence[str]) -> Answer:
        require_ready()
        media = payload.content_type(request, allowed)
        with permits.one():
            body = await payload.read(request, max_body_bytes)
            if len(body) > _ASIDE_BYTES:
                text = await asyncio.to_thread(payload.text, media, body, options)
            else:
                text = payload.text(media, body, options)
            require_ready()  # it may have closed while the body came in
            verdict = await engine.classify(text)
        given = request.headers.get("x-request-id", "")[:_MAX_ID_CHARS]
        return Answer(**asdict(verdict), request_id=given or uuid.uuid4().hex)

    refusals = answers(
        "malformed_json",
        "not_a_mail",
        "incomplete",
        "too_large",
        "unsupported_content_type",
        "invalid_fields",
        "overloaded",
        "not_ready",
    )

    @app.post("/v1/classify", responses=refusals, openapi_extra=_body(payload.JSON, payload.RFC822))
    async def classify(request: Request) -> Answer:
        """Classify one mail, given as JSON fields or as the message itself."""
        return await answer(request, (payload.JSON, payload.RFC822))

    @app.post(
        "/v1/classify/raw",
        responses={key: value for key, value in refusals.items() if key != 422},
        openapi_extra=_body(payload.RFC822, payload.BYTES),
    )
    async def classify_raw(request: Request) -> Answer:
        """Classify one RFC 5322 message, sent as it is."""
        return await answer(request, (payload.RFC822, payload.BYTES))

    @app.get("/v1/model")
    async def model() -> Model:
        """Which model answers, and what it reads of a mail."""
        return Model(**asdict(engine.model))

    @app.get("/healthz")
    async def healthz() -> Status:
        """Whether the process answers at all."""
        return Status()

    @app.get("/readyz", responses=answers("not_ready"))
    async def readyz() -> Status:
        """Whether mails are taken."""
        require_ready()
        return Status()

    return app


def _body(*media: str) -> dict[str, Any]:
    """The OpenAPI request body of a route; FastAPI cannot know it, as the route reads it itself."""
    fields = [payload.MailParts.model_json_schema(), payload.RawMail.model_json_schema()]
    schemas: dict[str, Any] = {
        payload.JSON: {"oneOf": fields},
        payload.RFC822: {"type": "string", "format": "binary"},
        payload.BYTES: {"type": "string", "format": "binary"},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {name: {"schema": schemas[name]} for name in media},
        }
    }
