"""Ray, once a session, for all the tests that need one; and a home of their own for all."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard import JobError, cluster_versions
from cluster.forkserver import executable
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

    ray.init(
        num_cpus=6,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"py_executable": executable()},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def head() -> Iterator[str]:
    """A head of its own, ended as one process group; other clusters on the machine stay."""
    folder = tempfile.mkdtemp(prefix="mr", dir="/tmp")
    dashboard = unused_port()
    programs = Path(sys.executable).parent  # jobs call `python`, as in the image
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    command = [str(programs / "ray"), "start", "--head", "--block"]
    options = {
        "port": unused_port(),
        "dashboard-port": dashboard,
        "ray-client-server-port": unused_port(),
        # Fixed by default: beside another head, jobs would find "no available agent".
        "dashboard-agent-listen-port": unused_port(),
        "num-cpus": 6,
        "temp-dir": folder,
    }
    process = subprocess.Popen(
        [*command, *(f"--{name}={value}" for name, value in options.items())],
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                cluster_versions(url)
                break
            except JobError:
                assert process.poll() is None, "ray start ended"
                assert time.monotonic() < deadline, "no dashboard within a minute"
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked politely, it takes half a minute
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    return unused_port()
