"""GET /healthz, /readyz: whether the process answers, and whether it takes mails."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from serving.errors import answers
from serving.service import Service


class Status(BaseModel):
    """The state of the server."""

    status: Literal["ok"] = "ok"


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter()

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
