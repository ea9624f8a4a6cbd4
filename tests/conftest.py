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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from cluster.dashboard import JobError, cluster_versions, connect
from cluster.forkserver import executable
from cluster.session import quiet

# The same examples in every run: what is found by chance becomes an example of its own. And no
# deadlines: how long one takes is the machine's affair.
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")
os.environ["MLFLOW_TRACKING_URI"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)
# As `mailray serve` sets it: Serve's proxies have it from their node.
os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "serving.proxy:before"
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


@dataclass(frozen=True)
class Head:
    """A running `ray start --head`."""

    url: str
    """Of its job server."""
    gcs: str
    """What other nodes join."""
    process: "subprocess.Popen[bytes]"
    environment: dict[str, str]

    def nodes(self) -> set[str]:
        """Those that are alive."""
        living = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        answer = connect(self.url)._do_request("GET", f"/api/v0/nodes?{living}")
        return {node["node_id"] for node in answer.json()["data"]["result"]["result"]}

    @contextmanager
    def node(self, cpus: int) -> Iterator["subprocess.Popen[bytes]"]:
        """Another node, which has joined, for the time of the block."""
        # In the head's folder it would unpack a job's files anew, under the job's feet.
        folder = tempfile.mkdtemp(prefix="mr", dir="/tmp")
        words = [f"--address={self.gcs}", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
        # The head demands this user's token if there is one; a node does not show it unasked.
        token = (Path.home() / ".ray" / "auth_token").is_file()
        shown = {"RAY_AUTH_MODE": "token"} if token else {}
        before = self.nodes()
        with _ray_start(words, self.environment | shown) as process:
            deadline = time.monotonic() + 120
            while not (joined := self.nodes() - before):
                assert process.poll() is None, "ray start ended"
                assert time.monotonic() < deadline, "no node within two minutes"
                time.sleep(0.5)
            yield process
        shutil.rmtree(folder, ignore_errors=True)
        deadline = time.monotonic() + 120
        while joined & self.nodes():  # the next test counts nodes
            assert time.monotonic() < deadline, "a node that was killed is still counted"
            time.sleep(0.5)


@pytest.fixture(scope="session")
def head() -> Iterator[str]:
    """The job server of a head that many tests share."""
    with started_head() as started:
        yield started.url


@contextmanager
def started_head() -> Iterator[Head]:
    """A head of its own, ended as one process group; other clusters on the machine stay."""
    folder = tempfile.mkdtemp(prefix="mr", dir="/tmp")
    dashboard, gcs = unused_port(), unused_port()
    programs = Path(sys.executable).parent  # jobs call `python`, as in the image
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    options = {
        "port": gcs,
        "dashboard-port": dashboard,
        "ray-client-server-port": unused_port(),
        # Fixed by default: beside another head, jobs would find "no available agent".
        "dashboard-agent-listen-port": unused_port(),
        "num-cpus": 6,
        "temp-dir": folder,
    }
    words = ["--head", *(f"--{name}={value}" for name, value in options.items())]
    url = f"http://127.0.0.1:{dashboard}"
    try:
        with _ray_start(words, environment) as process:
            deadline = time.monotonic() + 120
            while True:
                try:
                    cluster_versions(url)
                    break
                except JobError:
                    assert process.poll() is None, "ray start ended"
                    assert time.monotonic() < deadline, "no dashboard within two minutes"
                    time.sleep(0.5)
            started = Head(url, f"127.0.0.1:{gcs}", process, environment)
            while not started.nodes():  # its dashboard answers before it counts itself
                assert time.monotonic() < deadline, "no node within two minutes"
                time.sleep(0.5)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ray_start(
    words: list[str], environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), "start", "--block", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked politely, it takes half a minute
        process.wait()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on."""
    return unused_port()
