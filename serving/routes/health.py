"""GET /healthz, /readyz: whether the process answers, and whether it takes mails."""

from fastapi import APIRouter

from serving.answers import Status
from serving.errors import answers
from serving.service import Service


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Status:
        """Whether the process answers at all."""
        return Status()

    @router.get("/readyz", responses=answers("not_ready"))
    async def readyz() -> Status:
        """Whether mails are taken."""
        service.require_ready()
        return Status()

    return router
