"""GET /metrics: the numbers of all replicas, for Prometheus."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

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
        _, media = choose_encoder(request.headers.get("accept", ""))
        openmetrics = media.startswith("application/openmetrics-text")
        told = await board.all()
        texts = [each.metrics for each in told] + [series(engine, [each.drift for each in told])]
        return Response(merged(texts, openmetrics=openmetrics), media_type=media)

    return router
