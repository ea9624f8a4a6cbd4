"""A random model of any kind, and with every export; no weights are read."""

from pathlib import Path
from typing import Any

import torch

from training.bundle import KINDS, Bundle, save
from training.config import DataConfig, ModelConfig, TrainConfig
from training.export import Sample, Tolerance, export
from training.model import build
from training.operating import OperatingPoint
from training.scorer import Scorer
from training.stages import Quiet
from training.weights import tokenizer

TEXTS = ["subject: a\n\nshort", "subject: b\n\n" + "a longer one " * 30, "lunch at noon?", "win"]


def made(
    folder: Path, pooling: str = "mean", head: str = "softmax", labels: int = 2,
    *, multi: bool = False, wide: bool = False, seed: int = 0,
) -> Bundle:  # fmt: skip
    """A random model; its scores differ from mail to mail."""
    names = tuple(f"label-{number}" for number in range(labels))
    data = DataConfig(max_length=32, labels=names, multi_label=multi, wide_length=64 if wide else 0)
    shape: dict[str, Any] = {"name": "tiny", "pooling": pooling, "head": head,
                             "wide_buckets": 1024}  # fmt: skip
    config = TrainConfig(recipe="smoke", data=data, model=ModelConfig.model_validate(shape))
    torch.manual_seed(seed)
    model = build(config.model, labels, 32, multi=multi, wide=wide)
    torch.nn.init.normal_(model.head.weight)
    if model.wide is not None:
        torch.nn.init.normal_(model.wide.weights)
    points = [OperatingPoint("balanced", 0.005, 0.4, 598, 600)] if labels == 2 else []
    return save(
        folder, model, tokenizer("tiny"), config, version="1", metrics={}, temperature=1.5,
        points=points,
    )  # fmt: skip


def tokens(bundle: Bundle) -> list[list[int]]:
    return Scorer(bundle, "fp32").tokens(TEXTS)


def sample(bundle: Bundle) -> Sample:
    """The same mails for both: a random model has learned from none."""
    return Sample(check=tokens(bundle), fit=tokens(bundle))


def with_all(folder: Path) -> Bundle:
    """A bundle with every export, none of them held to a tolerance."""
    bundle = made(folder / "plain", wide=True)
    for kind in KINDS:
        some = sample(bundle) if kind.runtime == "openvino" else None
        bundle = export(bundle, folder / "all", kind, some, Quiet(), Tolerance(1, 1, 1))
    return bundle
