"""The HTTP API: routes over an engine, without Ray.

    POST /v1/classify        JSON (`subject`, `from`, `body`, or `raw`) or message/rfc822
    POST /v1/classify/raw    message/rfc822 or application/octet-stream
    POST /v1/feedback        what a mail really was; DELETE /v1/feedback/{id} erases it
    GET  /v1/model, /healthz, /readyz, /docs, /openapi.json

Each module of `serving.routes` has some of them. What can be refused, and with which status,
stands in `serving.errors`.
"""

from typing import Any

from fastapi import FastAPI

from serving.access import Access, Gate, secured
from serving.engine import Engine
from serving.errors import answers, install
from serving.feedback.keeper import Keeper
from serving.routes import classify, feedback, health, models
from serving.service import Permits, Service


def build_api(
    engine: Engine,
    *,
    max_in_flight: int,
    max_body_bytes: int,
    body_timeout_s: float = 30.0,
    access: Access | None = None,
    keeper: Keeper | None = None,
) -> FastAPI:
    """The ASGI application over an engine; it takes feedback where there is a keeper of it."""
    access = access or Access(None)
    app = FastAPI(
        title="mailray",
        summary="Classifies e-mail.",
        version="1",
        responses=answers("internal"),
    )
    app.add_middleware(Gate, access=access)
    install(app)
    service = Service(engine, Permits(max_in_flight), max_body_bytes, body_timeout_s)
    for module in (classify, models, health):
        app.include_router(module.routes(service))
    if keeper is not None:
        app.include_router(feedback.routes(service, keeper))
    document = app.openapi

    def openapi() -> dict[str, Any]:
        return app.openapi_schema or secured(document(), access)

    app.openapi = openapi  # type: ignore[method-assign]
    return app
