"""POST /v1/classify and /v1/classify/raw: the verdict on a mail, or on many.

Of many, each answer stands at its mail's place. What is wrong with one of them stands there as an
error, and the others are answered; what the server cannot do (429, 503, 504) fails the request.
"""

from dataclasses import asdict

from fastapi import APIRouter, Request

from serving import mails, payload
from serving.access import caller
from serving.account import account
from serving.answers import Answer, Answers, ErrorBody, ErrorDetail, Timings
from serving.engine import Engine, Scored
from serving.errors import ApiError, Code, answers
from serving.mails import Parsed
from serving.openapi import operation
from serving.request_ids import request_id
from serving.service import Service, options

_RAW = (payload.RFC822, payload.BYTES)
_REFUSALS: tuple[Code, ...] = (
    "malformed_json",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "too_slow",
    "too_large",
    "unsupported_content_type",
    "overloaded",
    "not_ready",
    "deadline_exceeded",
)


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["classify"])

    def answer(scored: Scored, parsed: Parsed, engine: Engine, id_: str) -> Answer:
        return Answer(
            **asdict(scored.verdict),
            mail_text_version=engine.model.mail_text_version,
            request_id=id_,
            timings=Timings(parse=parsed.ms, **asdict(scored.timings)),
        )

    @router.post(
        "/v1/classify",
        responses=answers(*_REFUSALS, "invalid_fields"),
        openapi_extra=operation(payload.JSON, payload.RFC822, most=service.max_mails),
    )
    async def classify(request: Request) -> Answer | Answers:
        """Classify one mail, given as JSON fields or as the message itself, or many in `mails`."""
        service.require_ready()
        deadline, id_ = service.deadline(request), request_id(request)
        media = payload.content_type(request, (payload.JSON, payload.RFC822))
        engine = service.assigned(id_)
        with service.permits.one():
            given = await service.read(
                request, mails.one_or_many, media, options(engine), service.max_mails
            )
            many = given if isinstance(given, list) else [given]
            caller(request).charge(len(many) - 1)
            account().refused = [mail.code for mail in many if isinstance(mail, ApiError)]
            good = [mail for mail in many if isinstance(mail, Parsed)]
            found = iter(await service.scored(engine, good, deadline))
        told = [
            _refused(mail) if isinstance(mail, ApiError) else answer(next(found), mail, engine, id_)
            for mail in many
        ]
        if isinstance(given, list):
            return Answers(answers=told, request_id=id_)
        return told[0]  # type: ignore[return-value]  # what is wrong with the only one was raised

    @router.post(
        "/v1/classify/raw",
        responses=answers(*(code for code in _REFUSALS if code != "malformed_json")),
        openapi_extra=operation(*_RAW),
    )
    async def classify_raw(request: Request) -> Answer:
        """Classify one RFC 5322 message, sent as it is."""
        service.require_ready()
        deadline, id_ = service.deadline(request), request_id(request)
        media = payload.content_type(request, _RAW)
        engine = service.assigned(id_)
        with service.permits.one():
            mail = await service.read(request, mails.one, media, options(engine))
            [scored] = await service.scored(engine, [mail], deadline)
        return answer(scored, mail, engine, id_)

    return router


def _refused(error: ApiError) -> ErrorBody:
    return ErrorBody(error=ErrorDetail(code=error.code, message=error.message))
