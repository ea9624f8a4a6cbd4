"""A bundle with random weights; a twin of the engine without any."""

from functools import partial
from pathlib import Path

import pytest

from tests.serving.twin import Send, Twin, sent
from training.bundle import Bundle, save
from training.config import DataConfig, ModelConfig, TrainConfig
from training.model import build
from training.weights import tokenizer

LENGTH = 64


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    config = TrainConfig(
        recipe="smoke", data=DataConfig(max_length=LENGTH), model=ModelConfig(name="tiny")
    )
    model = build(config.model, 2, LENGTH)
    path: Path = tmp_path_factory.mktemp("serving") / "bundle"
    return save(path, model, tokenizer("tiny"), config, version="7", metrics={})


@pytest.fixture
def twin() -> Twin:
    return Twin()


@pytest.fixture
def send(twin: Twin) -> Send:
    return partial(sent, twin)
