"""GET /metrics: the numbers of all replicas, for Prometheus."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from serving.board import Board
from serving.drift_series import series
from serving.engine import Engine
from serving.metrics import merged

_EXAMPLE: Final = 'mailray_mails_total{outcome="verdict",replica="local"} 42.0\n'


def routes(engine: Engine, board: Board) -> APIRouter:
    """The route over an engine and what its replicas tell."""
    router = APIRouter(tags=["metrics"])

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}},
    )
    async def metrics(request: Request) -> Response:
        """Tell the counters, histograms and gauges of every replica, in Prometheus' text format.

        Whoever accepts `application/openmetrics-text` gets that. Each series has the label
        `replica`, but for drift, which is of all together.
        """
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        told = await board.all()
        texts = [each.metrics for each in told] + [series(engine, [each.drift for each in told])]
        media = CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_PLAIN_0_0_4
        return Response(merged(texts, openmetrics=openmetrics), media_type=media)

    return router
