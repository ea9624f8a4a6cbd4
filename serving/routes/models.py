"""GET /v1/model: which model answers."""

from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from serving.service import Service


class Model(BaseModel):
    """The model that answers."""

    name: str
    version: str
    labels: list[str]
    multi_label: bool
    """Whether a mail may have several, or none."""
    mail_text_version: int
    extras: list[str]
    max_length: int
    precision: Literal["bf16", "fp32", "int8"]
    runtime: Literal["torch", "onnx"]
    measured: dict[str, float]
    """Milliseconds that each runtime took at start, where there was a choice."""


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter()

    @router.get("/v1/model")
    async def model() -> Model:
        """Which model answers, and what it reads of a mail."""
        return Model(**asdict(service.engine.model))

    return router
