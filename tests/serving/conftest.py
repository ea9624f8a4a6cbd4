"""A bundle with random weights, a twin of the engine without any, a store, a browser."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from serving.feedback.store import Store
from tests.serving.twin import Send, Twin, sent
from tests.training import chromium
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


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kept' / 'feedback.db'}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store(store_url)
    yield store
    store.close()


@pytest.fixture(scope="session")
def started() -> Iterator[chromium.Chromium]:
    if not chromium.PROGRAM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with chromium.browser() as found:
        yield found
