"""A bundle with random weights, a twin of the engine, a store of feedback, a browser."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest

from serving.feedback.store import Store
from tests.serving.cards import CARD, CURVE, EPOCHS, POINTS
from tests.serving.site import Site, site
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


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """A bundle with a card, curves, and a figure that is no number."""
    place: Path = tmp_path_factory.mktemp("page") / "bundle"
    copytree(bundle.path, place)
    facts = json.loads((place / "bundle.json").read_text())
    facts |= {"curves": {"spam": CURVE}, "points": POINTS, "epochs": EPOCHS}
    facts["epochs"][0]["val_recall"] = float("nan")
    (place / "bundle.json").write_text(json.dumps(facts))
    (place / "README.md").write_text(CARD)
    return place


@pytest.fixture(scope="module")
def page_running(carded: Path) -> Iterator[Site]:
    with site(carded) as found:
        if "/v1/models" not in {getattr(route, "path", "") for route in found.app.routes}:
            found.app.add_api_route(
                "/v1/models", lambda: {"models": [{"name": "twin", "version": "3"}]}
            )
        yield found


@pytest.fixture
def page_server(page_running: Site) -> Site:
    found = page_running
    found.token, found.fault, found.explained, found.raw = "", None, None, False
    found.findings = [
        {"section": "reply-to", "text": "Reply-To has another domain: b.example", "weight": 0.7},
        {"section": "links", "text": "1 link to evil.example", "weight": -0.2},
    ]
    found.seen.clear()
    return found


@pytest.fixture
def browser(started: chromium.Chromium, page_server: Site) -> chromium.Chromium:
    started.dark(False)
    started.open(page_server.url, width=1000)
    return started
