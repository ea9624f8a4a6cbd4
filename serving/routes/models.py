"""GET /v1/models: what answers."""

from dataclasses import asdict

from fastapi import APIRouter

from serving.answers import Model, Models
from serving.service import Service


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def models() -> Models:
        """Which models answer, and what they read of a mail."""
        return Models(models=[Model(role="champion", **asdict(service.engine.model))])

    return router
