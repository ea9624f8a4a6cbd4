"""The image and the cluster, once for all tests, and the table of what was checked."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import engine
from tests.containers.nodes import RayCluster

_BEGUN = pytest.StashKey[float]()


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder for this session of tests, and podman set up."""
    folder = engine.new_folder()
    engine.configure(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def image(place: Path) -> str:
    """The image, built from this tree."""
    engine.build(place)
    return engine.IMAGE


@pytest.fixture(scope="session")
def cluster(place: Path, image: str) -> Iterator[RayCluster]:
    """A head and two workers."""
    with RayCluster(place, image=image) as started:
        yield started


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was checked, how it went, and how long each took with what it waited for first."""
    rows = []
    for word in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(word):
            if "tests/containers" in report.nodeid and (report.when == "call" or word != "passed"):
                seconds = dict(report.user_properties).get("seconds", report.duration)
                found = dict(report.user_properties).get("found", "")
                name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
                rows.append((word, f"{seconds:6.0f} s", name, found))
    if rows:
        terminalreporter.section("checked in containers")
        for word, seconds, name, found in rows:
            terminalreporter.write_line(f"{word:8} {seconds}  {name}{found and f': {found}'}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """The clock starts before the fixtures, which build the image and start the cluster."""
    item.stash[_BEGUN] = time.monotonic()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note the time since."""
    try:
        yield
    finally:
        item.user_properties.append(("seconds", time.monotonic() - item.stash[_BEGUN]))
