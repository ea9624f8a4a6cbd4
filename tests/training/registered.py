"""Bundles with random weights, put into a registry."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from training import bundle as bundles
from training.config import DataConfig, ModelConfig, TrackingConfig, TrainConfig
from training.home import Home
from training.model import MailModel, build
from training.tracking import client
from training.upload import register
from training.weights import tokenizer

NAME = "mailray-spam"


def registered(
    home: Home,
    folder: Path,
    *,
    seed: int = 0,
    labels: tuple[str, ...] = ("ham", "spam"),
    extras: tuple[str, ...] = (),
    promote: str = "never",
    spoil: Callable[[MailModel], object] | None = None,
) -> str:
    """Make, upload and register a tiny bundle; gives its version."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    torch.manual_seed(seed)
    config = TrainConfig(
        recipe="smoke",
        data=DataConfig(max_length=64, labels=labels, extras=extras),  # type: ignore[arg-type]
        model=ModelConfig(name="tiny"),
        tracking=TrackingConfig(model=NAME, promote=promote),  # type: ignore[arg-type]
    )
    model = build(config.model, len(labels), 64)
    if spoil is not None:
        spoil(model)
    made = bundles.save(
        folder / f"bundle-{seed}", model, tokenizer("tiny"), config, version=f"run-{seed}",
        metrics={},
    )  # fmt: skip
    mlflow = client(home)
    place = mlflow.get_experiment_by_name(NAME)
    experiment = (
        place.experiment_id if place else mlflow.create_experiment(NAME, str(home.artifacts))
    )
    run = mlflow.create_run(experiment)
    version, _ = register(home, made, run.info.run_id, config.tracking)
    return version
