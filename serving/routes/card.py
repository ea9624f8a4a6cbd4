"""GET /v1/models/{name}/card: what is known of the model that answers, for people."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from serving.errors import ApiError, answers
from serving.service import Service

_EXAMPLE: Final[dict[str, Any]] = {
    "name": "mailray-spam",
    "version": "3",
    "labels": ["ham", "spam"],
    "text": "# mailray-spam 3\n\nClassifies e-mail as ham or spam.\n",
    "curves": {
        "spam": {
            "yes": 190,
            "no": 415,
            "roc": [[0, 0, None], [0, 186, 0.9941], [415, 190, 0.0001]],
            "calibration": [[0.0021, 0.0024, 410], [0.9987, 0.9692, 195]],
        }
    },
    "points": [{"name": "balanced", "rate": 0.005, "threshold": 0.83, "needed": 598, "had": 1240}],
    "epochs": [{"epoch": 1, "train_loss": 0.21, "val_loss": 0.0097, "best": True}],
}


class Card(BaseModel):
    """A model's card and curves; null stands for a figure that there is not."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    name: str
    version: str
    labels: list[str]
    text: str
    """The model card of its bundle: Markdown, with metadata in YAML before it."""
    curves: dict[str, Any]
    """For labels, by name, what `training.curve.Curve.told` gives of the test mails; empty where
    the bundle was made by a mailray that did not keep it."""
    points: list[dict[str, Any]]
    """The operating points: `name`, `rate`, `threshold`, `needed`, `had`."""
    epochs: list[dict[str, Any]]
    """What each epoch of training gave."""


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models/{name}/card", responses=answers("not_found"))
    async def card(name: str) -> Card:
        """The card and curves of the model that answers."""
        model = service.engine.model
        if name != model.name:
            raise ApiError("not_found", f"{model.name} answers here")
        if model.bundle is None:
            raise ApiError("not_found", "this model has no bundle, and so no card")
        try:
            text, facts = await asyncio.to_thread(_read, model.bundle)
        except (OSError, ValueError) as error:
            raise ApiError("not_found", "the bundle of this model is gone") from error
        return Card(
            name=model.name,
            version=model.version,
            labels=list(model.labels),
            text=text,
            curves=facts.get("curves", {}),
            points=facts.get("points", []),
            epochs=facts.get("epochs", []),
        )

    return router


def _read(bundle: Path) -> tuple[str, dict[str, Any]]:
    facts = json.loads((bundle / "bundle.json").read_text("utf-8"))
    return (bundle / "README.md").read_text("utf-8"), _finite(facts)


def _finite(tree: Any) -> Any:
    """The same without NaN, which JSON has not and a bundle's figures may."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
