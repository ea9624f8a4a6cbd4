"""POST /v1/feedback, DELETE /v1/feedback/{id}: what a mail really was.

Answered once it is on disk. The same feedback again, after a timeout say, is kept once.
"""

import time
import uuid
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving import openapi, payload
from serving.access import caller
from serving.answers import Kept
from serving.errors import ApiError, answers
from serving.feedback.keeper import Keeper
from serving.feedback.record import MAX_ID, MAX_MESSAGE_ID, Record, key
from serving.mails import AnyMail, EncodedMail, MailParts, RawMail, Text, decoded
from serving.metrics import Metrics
from serving.service import Permits, Room, Service
from training.labels import Labels

_AT_ONCE = 16
"""Feedbacks whose bodies are read at once; they have no part in the classifier's permits."""
_BODIES = 4
"""Of the largest size that are held until the store has them; not in the classifier's room."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Consent(_Strict):
    """What the one whose mail it is has agreed to."""

    store_text: bool = False
    """To keep the mail; without it a mail that is sent along is dropped."""
    train: bool = False
    """To train models on it."""


class GivenVerdict(_Strict):
    """What the model had said."""

    label: Annotated[Text, Field(max_length=500)]
    probability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


_EXAMPLE: dict[str, Any] = {
    "request_id": "5f0c2b0b7cbf4c24a3cc5d1e5a9d7a63",
    "label": "spam",
    "verdict": {"label": "ham", "probability": 0.91},
    "model": "mailray-spam",
    "version": "3",
    "consent": {"store_text": True, "train": True},
    "mail": {"subject": "Prize", "from": "a@example.com", "body": "Claim it now"},
}


class FeedbackBody(_Strict):
    """What a mail really was; of `request_id` and `message_id` at least one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_EXAMPLE],
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("request_id", "message_id")
            ],
        }
    )

    request_id: Annotated[Text, Field(min_length=1, max_length=MAX_ID)] | None = None
    """As the answer of /v1/classify had it."""
    message_id: Annotated[Text, Field(min_length=1, max_length=MAX_MESSAGE_ID)] | None = None
    """The mail's Message-ID."""
    label: Text | list[Text]
    """The right one; of a model whose mails may have several, all of them."""
    verdict: GivenVerdict | None = None
    model: Annotated[Text, Field(max_length=200)] | None = None
    version: Annotated[Text, Field(max_length=200)] | None = None
    """Of the model that had said so."""
    consent: Consent = Consent()
    mail: AnyMail | None = None
    """The mail as fields, or whole."""

    @model_validator(mode="after")
    def _is_of_a_mail(self) -> Self:
        if self.request_id is None and self.message_id is None:
            raise ValueError("request_id or message_id is needed")
        return self


def routes(service: Service, keeper: Keeper, metrics: Metrics) -> APIRouter:
    """The routes over a service that takes feedback."""
    router = APIRouter(tags=["feedback"])
    permits, room = Permits(_AT_ONCE), Room(_BODIES * service.max_body_bytes)
    model = service.engine.model
    labels = Labels(model.labels, model.multi_label)
    document = openapi.of_model(FeedbackBody)
    fields = document["requestBody"]["content"][payload.JSON]["schema"]["properties"]
    fields["label"] = fields["label"] | _label_schema(labels)

    @router.post(
        "/v1/feedback",
        status_code=201,
        responses={
            200: {"model": Kept, "description": "The same feedback was there already."},
            **answers(
                "malformed_json", "incomplete", "too_slow", "conflict", "too_large",
                "unsupported_content_type", "invalid_fields", "overloaded",
                "feedback_unavailable",
            ),
        },
        openapi_extra=document,
    )  # fmt: skip
    async def add(request: Request, response: Response) -> Kept:
        """Tell what a mail really was."""
        payload.content_type(request, (payload.JSON,))
        with permits.one(), room.body() as take:
            body = await payload.read(request, service.max_body_bytes, service.body_timeout_s, take)
            said = payload.validated(FeedbackBody, payload.json_object(body))
            try:
                label = labels.spelling(said.label)
            except ValueError as error:
                kind = "some" if model.multi_label else "one"
                raise ApiError(
                    "invalid_fields", f"label: {kind} of {', '.join(labels.names)} is needed"
                ) from error
            record = _record(said, label, caller(request).name)
            text_kept = record.has_mail
            id, new = await keeper.add(record)
            if new:
                metrics.feedback()
        response.status_code = 201 if new else 200
        return Kept(id=id, new=new, text_kept=text_kept)

    @router.delete(
        "/v1/feedback/{id}",
        status_code=204,
        responses=answers("not_found", "overloaded", "feedback_unavailable"),
    )
    async def erase(id: str, request: Request) -> None:
        """Erase feedback that the same token has sent."""
        if not await keeper.erase(id[:64].replace("\0", ""), caller(request).name):
            raise ApiError("not_found", "this token has sent no feedback of that id")

    return router


def _label_schema(labels: Labels) -> dict[str, Any]:
    """The labels that this model has."""
    one = {"type": "string", "enum": list(labels.names)}
    if not labels.multi:
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": 1}]}
    # As one text they are joined, which no enumeration could say.
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": one}]}


def _record(said: FeedbackBody, label: str, token: str) -> Record:
    raw = _raw(said.mail)  # also where it is not kept: what is wrong with it is told
    kept = said.mail if said.consent.store_text else None
    fields = kept if isinstance(kept, MailParts) else None
    return Record(
        id=uuid.uuid4().hex,
        created=time.time_ns() // 1_000_000,
        token=token,
        key=key(said.request_id, said.message_id),
        request_id=_clean(said.request_id),
        message_id=_clean(said.message_id),
        label=label,
        given=_clean(said.verdict.label) if said.verdict else None,
        probability=said.verdict.probability if said.verdict else None,
        model=_clean(said.model),
        version=_clean(said.version),
        store_text=said.consent.store_text,
        train=said.consent.train,
        raw=raw if kept else None,
        subject=_clean(fields.subject) if fields else None,
        sender=_clean(fields.sender) if fields else None,
        body=_clean(fields.body) if fields else None,
    )


def _raw(mail: AnyMail | None) -> bytes | None:
    """The message that was sent; raises ApiError where it is not base64."""
    if isinstance(mail, EncodedMail):
        return decoded(mail.raw_base64, "mail.raw_base64")
    return mail.raw.encode() if isinstance(mail, RawMail) else None


def _clean(text: str | None) -> str | None:
    """Without NUL, which PostgreSQL has not, and the model does not read."""
    return None if text is None else text.replace("\0", "")
