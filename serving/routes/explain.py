"""POST /v1/explain: which words and facts of a mail speak for a label, and how much."""

import time
from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, Request

from serving import mails, payload
from serving.account import account
from serving.engine import Explains
from serving.errors import ApiError, answers
from serving.explained import Explained
from serving.openapi import operation
from serving.request_ids import request_id
from serving.service import Service, options

_TOP: Final = 10
_MOST_TOP: Final = 1_000


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["explain"])
    document = operation(payload.JSON, payload.RFC822)
    document["parameters"] = [*document["parameters"], *_parameters(service.engine.model.labels)]

    @router.post(
        "/v1/explain",
        responses=answers(
            "malformed_json",
            "not_a_mail",
            "incomplete",
            "too_slow",
            "invalid_header",
            "too_large",
            "unsupported_content_type",
            "invalid_fields",
            "overloaded",
            "not_explainable",
            "not_ready",
            "deadline_exceeded",
        ),
        openapi_extra=document,
    )
    async def explain(request: Request) -> Explained:
        """Say which words of one mail, sent as to /v1/classify, speak for or against a label."""
        service.require_ready()
        deadline = service.deadline(request)
        id_ = request_id(request)
        engine = service.assigned(id_)
        label, top = _asked(request, engine.model.labels)
        media = payload.content_type(request, (payload.JSON, payload.RFC822))
        if not isinstance(engine, Explains):
            raise ApiError("not_explainable", "this server has no means to explain")
        with service.permits.one():
            text, fields = await service.read(request, mails.original, media, options(engine))
            began = time.monotonic()
            found = await engine.explain(text, mail=fields, label=label, deadline=deadline)
            account().explained = began, time.monotonic() - began
        heaviest = [asdict(span) for span in found.top(top)]
        told = asdict(found) | {"top": heaviest, "request_id": id_}
        return Explained(**told)

    return router


def _parameters(labels: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": "label",
            "in": "query",
            "description": "The label to explain; by default the second of two, of more the most "
            "probable.",
            "schema": {"type": "string", "enum": list(labels)},
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
