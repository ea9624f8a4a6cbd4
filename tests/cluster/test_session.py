"""Sessions run in children: what they print, and what they leave behind, is the behaviour."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from cluster.session import SessionError, ray_session

CODE = """
import sys, time
from pathlib import Path
from cluster.console import Console
from cluster.session import ray_session
with Console.open("test", json_output=True, logs=Path(sys.argv[1])) as console:
    with ray_session(address=None, cpus=3) as session:
        import ray
        @ray.remote
        def work(): print("from a worker")
        ray.get(work.remote())
        console.result("", {"cpus": session.cpus, "local": session.local,
                            "dashboard": session.dashboard_url, "session": ray._private.worker.
                            _global_node.get_session_dir_path()})
        time.sleep(float(sys.argv[2]))
    assert not ray.is_initialized()
"""


@pytest.fixture(autouse=True)
def _no_ray_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have a Ray, which these must neither use nor end."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def alive(session: str) -> bool:
    """Whether a process still works for a Ray session."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if session in process.read_bytes().decode(errors="replace"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379"])
def test_an_address_where_nobody_answers_is_one_clear_error(address: str) -> None:
    with (
        pytest.raises(SessionError, match=rf"no Ray cluster answers at {address}; start one"),
        ray_session(address=address, cpus=1),
    ):
        pass


def test_a_server_that_is_no_ray_head_is_refused_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        with (
            pytest.raises(SessionError, match="no Ray cluster answers"),
            ray_session(address=address, cpus=1),
        ):
            pass
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "head"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(SessionError, match="host:port"), ray_session(address=address, cpus=1):
        pass


def test_a_refused_session_gives_sigterm_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SessionError), ray_session(address="127.0.0.1:1", cpus=1):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_local_ray_is_silent_and_leaves_no_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert '"local": true' in line
    (log,) = tmp_path.glob("*.log")
    assert "from a worker" in log.read_text()
    assert not alive(line.split('"session": "')[1].split('"')[0])


@pytest.mark.slow
def test_a_terminated_command_stops_its_ray(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path), "60"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        session = line.split('"session": "')[1].split('"')[0]
        assert alive(session)
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert not alive(session)
