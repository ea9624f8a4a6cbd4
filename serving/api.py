"""The HTTP API: routes over an engine, without Ray.

    POST /v1/classify        JSON: one mail or many; or message/rfc822
    POST /v1/classify/raw    message/rfc822 or application/octet-stream
    GET  /v1/models          what answers
    /v2                      the Open Inference Protocol
    GET  /healthz, /readyz, /docs, /openapi.json

Each module of `serving.routes` has some of them. What can be refused, and with which status,
stands in `serving.errors`.
"""

from fastapi import FastAPI

from serving.engine import Engine
from serving.errors import answers, install
from serving.request_ids import RequestIds
from serving.routes import classify, health, models, v2
from serving.service import Permits, Service


def build_api(
    engine: Engine,
    *,
    max_in_flight: int,
    max_body_bytes: int,
    timeout_ms: float = 30_000.0,
    max_mails: int = 64,
) -> FastAPI:
    """The ASGI application over an engine."""
    app = FastAPI(
        title="mailray",
        summary="Classifies e-mail.",
        version="1",
        responses=answers("internal"),
        redirect_slashes=False,  # it would lead to whatever host the caller names
    )
    install(app)
    app.add_middleware(RequestIds)
    service = Service(engine, Permits(max_in_flight), max_body_bytes, timeout_ms, max_mails)
    for module in (classify, models, v2, health):
        app.include_router(module.routes(service))
    return app
