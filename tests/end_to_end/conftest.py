"""A home with a trained model, and the command line in a home of its own."""

from pathlib import Path

import pytest

from tests.end_to_end.terminal import Mailray, run


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the smoke recipe has been trained, and nothing on the terminal but that."""
    home = tmp_path_factory.mktemp("e2e")
    said = run(home, "train", "--recipe", "smoke", "--json")
    assert said.code == 0, said.err
    assert said.json["metrics"]["test"]["accuracy"] > 0.8
    # A stage that takes long tells of it by lines of its own.
    stages = dict.fromkeys(line.split("  ")[0] for line in said.err.splitlines() if "  " in line)
    expected = ["tokens", "splits", "training", "evaluation", "baselines", "registry"]
    assert list(stages) == expected, said.err
    return home


@pytest.fixture
def mailray(home: Path) -> Mailray:
    """Run a command in this test's home."""
    return lambda *words, **kwargs: run(home, *words, **kwargs)
