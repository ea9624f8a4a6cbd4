"""POST /v1/classify and /v1/classify/raw: the verdict on a mail."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from serving import payload
from serving.errors import answers
from serving.service import Service, request_id


class Answer(BaseModel):
    """The verdict on one mail."""

    label: str
    """By the operating point; without one the most probable."""
    labels: list[str]
    """That one; where a mail may have several, all of probability 0.5 and above."""
    probability: float
    """Of `label`."""
    scores: dict[str, float]
    """The probability of every label."""
    model: str
    version: str
    operating_point: str | None
    """Its name; null where the most probable label is given."""
    threshold: float | None
    """The probability of the second label from which that is given."""
    unsure: bool
    """The most probable label is another, or the second's probability is in the abstention band."""
    request_id: str
    """The request's X-Request-ID, or one made up."""


_REFUSALS = answers(
    "malformed_json",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "too_large",
    "unsupported_content_type",
    "invalid_fields",
    "overloaded",
    "not_ready",
    "deadline_exceeded",
)


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter()

    async def answer(request: Request, allowed: Sequence[str]) -> Answer:
        service.require_ready()
        deadline = service.deadline(request)
        media = payload.content_type(request, allowed)
        number = request_id(request)
        engine = service.assigned(number)
        with service.permits.one():
            text = await service.text(request, media, engine)
            scored = await engine.classify(text, deadline=deadline)
        return Answer(**asdict(scored.verdict), request_id=number)

    @router.post(
        "/v1/classify", responses=_REFUSALS, openapi_extra=body(payload.JSON, payload.RFC822)
    )
    async def classify(request: Request) -> Answer:
        """Classify one mail, given as JSON fields or as the message itself."""
        return await answer(request, (payload.JSON, payload.RFC822))

    @router.post(
        "/v1/classify/raw",
        responses={key: value for key, value in _REFUSALS.items() if key != 422},
        openapi_extra=body(payload.RFC822, payload.BYTES),
    )
    async def classify_raw(request: Request) -> Answer:
        """Classify one RFC 5322 message, sent as it is."""
        return await answer(request, (payload.RFC822, payload.BYTES))

    return router


def body(*media: str) -> dict[str, Any]:
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
