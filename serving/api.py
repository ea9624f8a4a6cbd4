"""The HTTP API: routes over an engine, without Ray.

    POST /v1/classify        JSON: one mail or many; or message/rfc822
    POST /v1/classify/raw    message/rfc822 or application/octet-stream
    POST /v1/explain         as /v1/classify: which words and facts speak for a label
    POST /v1/feedback        what a mail really was; DELETE /v1/feedback/{id} erases it
    GET  /v1/drift           how far the mails of late are from the reference in the bundle
    GET  /v1/models          what answers; /v1/models/{name}/card has its card and curves
    /v2                      the Open Inference Protocol
    GET  /                   a page for people
    GET  /metrics            the numbers of all replicas, for Prometheus
    GET  /healthz, /readyz, /docs, /openapi.json

Each module of `serving.routes` has some of them. What can be refused, and with which status,
stands in `serving.errors`.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from starlette.routing import Route

from serving.access import Access, Gate, secured
from serving.account import Accounts, Observer, Routes
from serving.board import Alone, Board, Snapshot
from serving.drift import told_of
from serving.drift_series import DriftCounts
from serving.engine import Engine
from serving.errors import answers, install
from serving.feedback.keeper import Keeper
from serving.gauges import Standing
from serving.metrics import Metrics
from serving.request_ids import RequestIds
from serving.routes import card, classify, drift, explain, feedback, health, models, page, v2
from serving.routes import metrics as numbers
from serving.service import Permits, Room, Service

_BODIES: Final = 8
"""Of the largest size that a replica holds at once; there is room for any number of small ones."""


def build_api(
    engine: Engine,
    *,
    max_in_flight: int,
    max_body_bytes: int,
    timeout_ms: float = 30_000.0,
    max_mails: int = 64,
    body_timeout_s: float = 30.0,
    access: Access | None = None,
    keeper: Keeper | None = None,
    with_page: bool = True,
    metrics: Metrics | None = None,
    board: Board | None = None,
    observers: Sequence[Observer] = (),
) -> FastAPI:
    """The ASGI application over an engine; it takes feedback where there is a keeper of it.

    `metrics` counts its requests, `board` tells those of all replicas; by default there is one.
    """
    metrics = metrics or Metrics()
    board = board or Alone(partial(_told, engine, metrics))
    access = access or Access(None)
    app = FastAPI(
        title="mailray",
        summary="Classifies e-mail.",
        version="1",
        responses=answers("internal"),
        redirect_slashes=False,  # it would lead to whatever host the caller names
    )
    # The last one is the outermost: what the others refuse has an id as well.
    app.add_middleware(Gate, access=access)
    install(app)
    room = Room(_BODIES * max_body_bytes)
    service = Service(
        engine, Permits(max_in_flight), room, max_body_bytes, timeout_ms, max_mails, body_timeout_s
    )
    modules = (classify, explain, models, card, v2, health, *([page] if with_page else []))
    routers = [module.routes(service) for module in modules]
    routers += [drift.routes(service, board), numbers.routes(engine, board)]
    if keeper is not None:
        routers.append(feedback.routes(service, keeper, metrics))
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    for router in routers:
        app.include_router(router)
        paths += [route.path for route in router.routes if isinstance(route, Route)]
    app.add_middleware(Accounts, routes=Routes(paths), observers=(metrics.request, *observers))
    app.add_middleware(RequestIds)
    metrics.registry.register(Standing(engine, lambda: service.permits.taken))
    metrics.registry.register(DriftCounts(engine))
    document = app.openapi

    def openapi() -> dict[str, Any]:
        return app.openapi_schema or secured(document(), access)

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _told(engine: Engine, metrics: Metrics, wanted: bool) -> Snapshot:
    text = metrics.text() if wanted else ""
    return Snapshot(metrics.replica, time.time(), text, told_of(engine))
