"""The HTTP API: routes over an engine, without Ray.

    POST /v1/classify        JSON (`subject`, `from`, `body`, or `raw`) or message/rfc822
    POST /v1/classify/raw    message/rfc822 or application/octet-stream
    GET  /v1/models/{name}/card   the model's card and curves
    GET  /                   a page for people
    GET  /v1/model, /healthz, /readyz, /docs, /openapi.json

Each module of `serving.routes` has some of them. What can be refused, and with which status,
stands in `serving.errors`.
"""

from fastapi import FastAPI

from serving.engine import Engine
from serving.errors import answers, install
from serving.routes import card, classify, health, models, page
from serving.service import Permits, Service


def build_api(
    engine: Engine,
    *,
    max_in_flight: int,
    max_body_bytes: int,
    timeout_ms: float = 30_000.0,
    with_page: bool = True,
) -> FastAPI:
    """The ASGI application over an engine."""
    app = FastAPI(
        title="mailray",
        summary="Classifies e-mail.",
        version="1",
        responses=answers("internal"),
    )
    install(app)
    service = Service(engine, Permits(max_in_flight), max_body_bytes, timeout_ms)
    for module in (classify, models, card, health, *([page] if with_page else [])):
        app.include_router(module.routes(service))
    return app
