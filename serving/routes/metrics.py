"""GET /metrics: the numbers of all replicas, for Prometheus."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

from serving.board import Board
from serving.metrics import merged

_EXAMPLE: Final = 'mailray_mails_total{outcome="verdict",replica="local"} 42.0\n'


def routes(board: Board) -> APIRouter:
    """The route over a board."""
    router = APIRouter(tags=["metrics"])

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}},
    )
    async def metrics(request: Request) -> Response:
        """Tell the counters, histograms and gauges of every replica, in Prometheus' text format.

        Whoever accepts `application/openmetrics-text` gets that. Each series has the label
        `replica`.
        """
        _, media = choose_encoder(request.headers.get("accept", ""))
        openmetrics = media.startswith("application/openmetrics-text")
        texts = [each.metrics for each in await board.all()]
        return Response(merged(texts, openmetrics=openmetrics), media_type=media)

    return router
