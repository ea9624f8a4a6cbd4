"""Ray, once a session, for all the tests that need one; and a home of their own for all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.session import quiet

os.environ["MLFLOW_TRACKING_URI"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)
quiet()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MAILRAY_HOME of one test."""
    place = tmp_path / "home"
    monkeypatch.setenv("MAILRAY_HOME", str(place))
    return place


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with more logical CPUs than the machine may have."""
    import ray

    ray.init(num_cpus=6, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
