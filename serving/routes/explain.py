"""POST /v1/explain: which words and facts of a mail speak for a label, and how much."""

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from serving import payload
from serving.errors import ApiError, answers
from serving.routes.classify import body
from serving.service import Service, request_id
from serving.spans import Section

_TOP: Final = 10
_MOST_TOP: Final = 1_000


class Place(BaseModel):
    """Where a word stands in a field that was sent."""

    name: str
    """`subject`, `from` or `body`"""
    start: int
    """The first character, in Unicode code points (of JavaScript: `[...field]`)."""
    end: int


class Span(BaseModel):
    """A word that the model has read."""

    section: Section
    """The line of the mail text that it is in, or `link` or `body`."""
    start: int
    """In `text`, the mail text, in Unicode code points."""
    end: int
    text: str
    weight: float
    """What it adds to the score; above 0 it speaks for the label, below 0 against it."""
    named: bool
    """Whether it is the name of its line, as `subject:`, which the sender did not write."""
    field: Place | None
    """Where it stands in the JSON field that was sent; null where that is not certain."""


class Finding(BaseModel):
    """A fact of the mail, in words; what it quotes of the mail is as it came."""

    section: Section
    text: str
    weight: float
    """What its line adds to the score."""


_EXAMPLE: Final[dict[str, Any]] = {
    "label": "spam",
    "probability": 0.9987,
    "score": 6.64,
    "baseline": 1.46,
    "gap": 0.01,
    "complete": True,
    "tolerance": 0.01,
    "steps": 16,
    "seconds": 0.9,
    "elsewhere": -0.02,
    "text": "subject: Prize\nfrom: a@example.com\nreply-to: b.example\n\nClaim it now",
    "spans": [],
    "top": [
        {
            "section": "body",
            "start": 56,
            "end": 61,
            "text": "Claim",
            "weight": 1.9,
            "named": False,
            "field": {"name": "body", "start": 0, "end": 5},
        }
    ],
    "findings": [
        {
            "section": "reply-to",
            "text": "Reply-To has another domain than From: b.example",
            "weight": 0.7,
        }
    ],
    "model": "mailray-spam",
    "version": "3",
    "request_id": "9f1c",
}


class Explained(BaseModel):
    """Why a mail has a label, or has not: score = baseline + all weights + elsewhere + gap."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    label: str
    """The label that is explained."""
    probability: float
    """Of that label, calibrated, in float32: a server that computes in less may differ a little."""
    score: float
    """Its calibrated log-odds, of two labels or where a mail may have several; of more than two its
    logit less the mean of the others'."""
    baseline: float
    """The score of a mail that says nothing."""
    gap: float
    """score - baseline - all weights: the error of the method."""
    complete: bool
    """Whether the gap is within the tolerance; false where the time was up before."""
    tolerance: float
    """As a share of |score - baseline|, at least of 1."""
    steps: int
    """Of the integral."""
    seconds: float
    elsewhere: float
    """The weight that no word has: of the tokenizer's marks at the ends."""
    text: str
    """The mail text: what the model reads of the mail."""
    spans: list[Span]
    """Every word that the model has read, in the order of the text."""
    top: list[Span]
    """Those of the sender's that weigh most, the heaviest first."""
    findings: list[Finding]
    """The heaviest first."""
    model: str
    version: str
    request_id: str = Field(description="The request's X-Request-ID, or one made up.")


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter()

    @router.post(
        "/v1/explain",
        responses=answers(
            "malformed_json",
            "not_a_mail",
            "incomplete",
            "invalid_header",
            "too_large",
            "unsupported_content_type",
            "invalid_fields",
            "overloaded",
            "not_explainable",
            "not_ready",
            "deadline_exceeded",
        ),
        openapi_extra={**body(payload.JSON, payload.RFC822), "parameters": _PARAMETERS},
    )
    async def explain(request: Request) -> Explained:
        """Say which words of one mail, sent as to /v1/classify, speak for or against a label."""
        service.require_ready()
        deadline = service.deadline(request)
        label, top = _asked(request, service.engine.model.labels)
        media = payload.content_type(request, (payload.JSON, payload.RFC822))
        reasons = getattr(service.engine, "explain", None)
        if reasons is None:
            raise ApiError("not_explainable", "this server has no means to explain")
        with service.permits.one():
            text, fields = await service.original(request, media)
            found = await reasons(text, mail=fields, label=label, deadline=deadline)
        heaviest = [asdict(span) for span in found.top(top)]
        told = asdict(found) | {"top": heaviest, "request_id": request_id(request)}
        return Explained(**told)

    return router


_PARAMETERS: Final = [
    {
        "name": "label",
        "in": "query",
        "description": "The label to explain; by default the second of two, the most probable of "
        "more.",
        "schema": {"type": "string"},
        "example": "spam",
    },
    {
        "name": "top",
        "in": "query",
        "description": "How many spans `top` has at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": _MOST_TOP, "default": _TOP},
    },
]


def _asked(request: Request, labels: tuple[str, ...]) -> tuple[str | None, int]:
    query = request.query_params
    label, top = query.get("label"), query.get("top", str(_TOP))
    if label is not None and label not in labels:
        raise ApiError("invalid_fields", f"label: one of {', '.join(labels)}, got {label[:80]!a}")
    if not (top.isascii() and top.isdigit() and len(top) < 6 and 1 <= int(top) <= _MOST_TOP):
        raise ApiError("invalid_fields", f"top: 1 to {_MOST_TOP:,}, got {top[:80]!a}")
    return label, int(top)
