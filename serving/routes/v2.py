"""The Open Inference Protocol, JSON form: health, metadata and inference.

GET  /v2, /v2/health/live, /v2/health/ready
GET  /v2/models/{name}[/versions/{version}][/ready]
POST /v2/models/{name}[/versions/{version}]/infer

What tensors a request and its answer have stands in `serving.tensors`. Binary tensor data is an
extension of some servers, which this one does not have.
"""

from fastapi import APIRouter, Request

from serving import payload, tensors
from serving.access import caller
from serving.errors import ApiError, answers
from serving.inference import (
    InferenceAnswer,
    InferenceRequest,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from serving.openapi import of_model
from serving.request_ids import request_id
from serving.service import Service, options

_NAMED = answers("unknown_model", "internal", inference=True)
_READY = answers("unknown_model", "not_ready", "internal", inference=True)
_HEALTH = answers("not_ready", "internal", inference=True)
_INFER = answers(
    "malformed_json",
    "invalid_tensor",
    "not_a_mail",
    "incomplete",
    "invalid_header",
    "unknown_model",
    "too_large",
    "unsupported_content_type",
    "overloaded",
    "internal",
    "not_ready",
    "deadline_exceeded",
    inference=True,
)
_BODY = of_model(InferenceRequest)
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["open inference protocol"])
    service_of = _Models(service)

    @router.get("/v2", responses=answers("internal", inference=True))
    async def server() -> ServerMetadata:
        """Which server this is."""
        return ServerMetadata(name="mailray", version="1", extensions=[])

    @router.get("/v2/health/live", responses=answers("internal", inference=True))
    async def live() -> Live:
        """Whether the process answers at all."""
        return Live()

    @router.get("/v2/health/ready", responses=_HEALTH)
    async def ready() -> Ready:
        """Whether mails are taken."""
        service.require_ready()
        return Ready()

    @router.get(_MODEL, responses=_NAMED)
    async def model(name: str) -> ModelMetadata:
        """What a model takes and gives."""
        return service_of.metadata(name)

    @router.get(_VERSION, responses=_NAMED)
    async def model_version(name: str, version: str) -> ModelMetadata:
        """What a version of a model takes and gives."""
        return service_of.metadata(name, version)

    @router.get(f"{_MODEL}/ready", responses=_READY)
    async def model_ready(name: str) -> ModelReady:
        """Whether a model takes mails."""
        return service_of.ready(name)

    @router.get(f"{_VERSION}/ready", responses=_READY)
    async def version_ready(name: str, version: str) -> ModelReady:
        """Whether a version of a model takes mails."""
        return service_of.ready(name, version)

    @router.post(f"{_MODEL}/infer", responses=_INFER, openapi_extra=_BODY)
    async def infer(request: Request, name: str) -> InferenceAnswer:
        """The verdicts on the mails of a tensor."""
        return await service_of.infer(request, name)

    @router.post(f"{_VERSION}/infer", responses=_INFER, openapi_extra=_BODY)
    async def infer_version(request: Request, name: str, version: str) -> InferenceAnswer:
        """The verdicts of a version on the mails of a tensor."""
        return await service_of.infer(request, name, version)

    return router


class _Models:
    """What is the same with and without a version."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        self._require(name, version)
        model = self._service.engine.model
        return ModelMetadata(
            name=model.name,
            versions=[model.version],
            platform="mailray",
            inputs=tensors.INPUTS,
            outputs=tensors.outputs(model),
        )

    def ready(self, name: str, version: str | None = None) -> ModelReady:
        self._require(name, version)
        self._service.require_ready()
        return ModelReady(name=name)

    async def infer(
        self, request: Request, name: str, version: str | None = None
    ) -> InferenceAnswer:
        service = self._service
        service.require_ready()
        self._require(name, version)
        deadline = service.deadline(request)
        payload.content_type(request, (payload.JSON,))
        if "inference-header-content-length" in request.headers:
            raise ApiError("invalid_header", "binary tensor data is not read here; send JSON alone")
        id_ = request_id(request)
        engine = service.assigned(id_)
        with service.permits.one():
            asked, parsed = await service.read(
                request, tensors.read, options(engine), service.max_mails
            )
            caller(request).charge(len(parsed) - 1)
            verdicts = [one.verdict for one in await service.scored(engine, parsed, deadline)]
        return tensors.answer(asked, verdicts, engine.model, id_)

    def _require(self, name: str, version: str | None) -> None:
        model = self._service.engine.model
        if name != model.name or version not in (None, model.version):
            asked = name if version is None else f"{name} version {version}"
            raise ApiError(
                "unknown_model",
                f"{payload.shown(asked)}: here answers {model.name} version {model.version}",
            )
