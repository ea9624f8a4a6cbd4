"""The image and the cluster, once for all tests, and the table of what was checked."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kuberay import Document
from cluster.manifests import render
from tests.containers import engine, standins
from tests.containers.namespace import Namespace
from tests.containers.nodes import RayCluster, one
from tests.containers.platform import overlay, start
from tests.end_to_end.terminal import run

DEV = engine.ROOT / "k8s/overlays/dev"

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
def platform(place: Path) -> list[Document]:
    """What `kubectl apply -k` gets, with the artifacts in a bucket."""
    return render(overlay(place / "platform", "overlays/dev", "s3", "object-store"))


@pytest.fixture(scope="session")
def namespace(place: Path, image: str, platform: list[Document]) -> Iterator[Namespace]:
    """A namespace with the platform in it."""
    with Namespace(place, standins.images(place)) as made:
        for name in ("mailray-redis", "mailray-postgres", "mailray-store", "mailray-mlflow"):
            start(made, platform, name)
        yield made


@pytest.fixture(scope="session")
def cluster(namespace: Namespace) -> Iterator[RayCluster]:
    """A head and two workers."""
    with RayCluster(namespace, one(render(DEV / "cluster"), "RayCluster")) as started:
        yield started


@pytest.fixture(scope="session")
def corpus(place: Path, namespace: Namespace) -> Path:
    """Real mail, fetched by this machine and put where the claim has its corpora."""
    said = run(place / "outside", "data", "fetch", "spamassassin")
    assert said.code == 0, said.err
    here = namespace.home / "corpora/spamassassin"
    shutil.copytree(place / "outside/corpora/spamassassin", here)
    subprocess.run(["chown", "-R", "1000:1000", str(here.parent)], check=True)
    return here


@pytest.fixture(scope="session")
def champion(cluster: RayCluster, corpus: Path) -> str:
    """The name of a model of real mail, which a job has trained and registered."""
    said = cluster.submit(
        "train", "--recipe", "smoke", "data.source=spamassassin", "optimizer.epochs=2",
        "tracking.model=mailray-spam", "--name", "real-mail",
    )  # fmt: skip
    assert said.code == 0, said.err
    return "mailray-spam"


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
