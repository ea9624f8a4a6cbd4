"""Jobs: addresses and log following against a stand-in client, exit codes against a real head."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster import dashboard, jobs
from cluster.dashboard import JobError, connect, dashboard_url
from cluster.jobs import JobOutcome, checkout, submit
from tests.conftest import Head, started_head

# Ray's client passes the old default to aiohttp.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.com", "https://ray.example.com"),
        ("head:8265", "http://head:8265"),
        ("auto", "http://127.0.0.1:8265"),
        (None, "http://127.0.0.1:8265"),
    ],
)
def test_an_address_names_a_job_server(address: str | None, url: str) -> None:
    assert dashboard_url(address) == url


def test_the_environment_names_the_job_server_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert dashboard_url("auto") == "http://10.0.0.7:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://api:80")
    assert dashboard_url(None) == "http://api:80"
    assert dashboard_url("head:8265") == "http://head:8265"


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "head:port"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(JobError, match="http://host:8265"):
        dashboard_url(address)


def test_a_job_server_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(JobError, match=r"no Ray job server answers at http://127\.0\.0\.1:1;"):
        run_job("http://127.0.0.1:1", "pass")


def test_the_checkout_is_the_repository_of_this_package() -> None:
    assert checkout() == Path(jobs.__file__).parent.parent


class Broken:
    """A client whose log breaks off, and whose head is away for a moment."""

    LOG = "one\ntwo\nthree\nfour"

    def __init__(self, status: JobStatus, code: int | None) -> None:
        self.polls = 0
        self.connections = 0
        self.status = status
        self.code = code

    def get_job_info(self, job_id: str) -> Any:
        self.polls += 1
        if self.polls == 2:
            raise ConnectionError("the head restarts")
        if self.polls < 6:
            return SimpleNamespace(status=JobStatus.RUNNING, message=None, driver_exit_code=None)
        return SimpleNamespace(status=self.status, message="over", driver_exit_code=self.code)

    def get_job_logs(self, job_id: str) -> str:
        return self.LOG

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.connections += 1
        for start in range(0, 4 * self.connections, 4):
            yield self.LOG[start : start + 4]
        if self.connections == 2:
            raise RuntimeError("WebSocket connection closed unexpectedly")


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 1),
    ],
)
def test_a_broken_log_is_told_once_and_the_status_decides(
    monkeypatch: pytest.MonkeyPatch, status: JobStatus, code: int | None, exit_code: int
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    client: Any = Broken(status, code)
    lines: list[str] = []
    statuses: list[str] = []
    follower = jobs.Follower(client, "job", lines.append, statuses.append)
    assert asyncio.run(follower.follow()) == JobOutcome("job", status.value, exit_code, "over")
    assert lines == ["one", "two", "three", "four"]
    assert statuses == ["RUNNING", status.value]
    assert client.connections > 1


def test_a_fault_of_the_listener_ends_the_following_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    client: Any = Broken(JobStatus.SUCCEEDED, 0)

    def full(line: str) -> None:
        raise KeyError(line)

    follower = jobs.Follower(client, "job", full, lambda status: None)
    with pytest.raises(KeyError, match="one"):
        asyncio.run(follower.follow())
    assert client.polls < 6


def run_job(url: str, code: str, **options: Any) -> tuple[JobOutcome, list[str]]:
    lines: list[str] = []
    outcome = submit(
        url,
        [code],
        working_dir=options.pop("working_dir", None),
        env={"GREETING": "hello 'you'"},
        on_line=lines.append,
        on_status=lambda status: None,
        entrypoint=(sys.executable, "-c"),
        **options,
    )
    return outcome, lines


@pytest.mark.slow
def test_a_job_returns_its_exit_code_and_each_line_once(head: str, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "left.txt").write_text("left")
    (tmp_path / ".rayignore").write_text("left.txt\n")
    code = (
        "import os, pathlib, sys; print(os.environ['GREETING']);"
        "print(sorted(p.name for p in pathlib.Path().glob('*.txt'))); print('end', end='');"
    )
    outcome, lines = run_job(head, code + "sys.exit(0)", working_dir=tmp_path)
    assert (outcome.status, outcome.exit_code) == ("SUCCEEDED", 0)
    assert lines[-3:] == ["hello 'you'", "['kept.txt']", "end"]
    outcome, lines = run_job(head, code + "sys.exit(3)", working_dir=tmp_path)
    assert (outcome.status, outcome.exit_code) == ("FAILED", 3)
    assert outcome.message == "Job entrypoint command failed with exit code 3"
    assert lines[-1] == "end"


@pytest.mark.slow
def test_a_detached_job_goes_on_alone(head: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    outcome, lines = run_job(head, f"open({str(done)!r}, 'w')", detach=True)
    assert (outcome.status, outcome.exit_code, lines) == ("PENDING", 0, [])
    assert outcome.job_id in outcome.message
    deadline = time.monotonic() + 30
    while not done.exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def sigint() -> Iterator[None]:
    """SIGINT as Python has it: a shell that starts the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True])
def test_ctrl_c_ends_the_following_and_the_job_only_if_it_shall(
    head: str, sigint: None, stops: bool
) -> None:
    def interrupt(line: str) -> None:
        if line == "working":
            os.kill(os.getpid(), signal.SIGINT)

    outcome = submit(
        head,
        ["import time; print('working', flush=True); time.sleep(60)"],
        working_dir=None,
        env={},
        on_line=interrupt,
        on_status=lambda status: None,
        stops=lambda: stops,
        entrypoint=(sys.executable, "-c"),
    )
    assert outcome.exit_code == 130
    if stops:
        assert outcome.message == f"job {outcome.job_id} is told to stop"
        deadline = time.monotonic() + 30
        while jobs.status(head, outcome.job_id).status != "STOPPED":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return
    assert outcome.status == "RUNNING"
    assert f"no longer following job {outcome.job_id}, which goes on" in outcome.message
    client = connect(head)
    assert client.get_job_status(outcome.job_id) == JobStatus.RUNNING
    client.stop_job(outcome.job_id)


@pytest.mark.slow
def test_jobs_are_listed_shown_told_and_stopped(head: str) -> None:
    failed, _ = run_job(head, "print('said'); import sys; sys.exit(3)")
    row = jobs.status(head, failed.job_id)
    assert (row.status, row.over) == ("FAILED", True)
    assert row.message == "Job entrypoint command failed with exit code 3"
    assert "import sys" in row.command
    lines: list[str] = []
    assert jobs.logs(head, failed.job_id, lines.append, follow=False).exit_code == 0
    assert lines[-1] == "said"
    assert jobs.logs(head, failed.job_id, lines.append, follow=True).exit_code == 3

    sleeping, _ = run_job(head, "import time; time.sleep(60)", detach=True)
    assert jobs.listing(head)[0].job_id == sleeping.job_id
    assert failed.job_id in {row.job_id for row in jobs.listing(head)}
    assert jobs.stop(head, sleeping.job_id)
    deadline = time.monotonic() + 30
    while not jobs.status(head, sleeping.job_id).over:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert jobs.status(head, sleeping.job_id).status == "STOPPED"
    assert not jobs.stop(head, sleeping.job_id)
    with pytest.raises(JobError, match=r"says: .*nowhere"):
        jobs.status(head, "nowhere")


def _dashboard(head: Head) -> int:
    """The process that has the job server."""
    for pid in (
        Path(f"/proc/{head.process.pid}/task/{head.process.pid}/children").read_text().split()
    ):
        if "dashboard/dashboard.py" in Path("/proc", pid, "cmdline").read_text():
            return int(pid)
    raise AssertionError("no dashboard")


@pytest.fixture
def own_head() -> Iterator[Head]:
    """A head whose parts are killed."""
    with started_head() as started:
        yield started


@pytest.mark.slow
def test_each_line_is_told_once_though_the_dashboard_is_killed_and_started_again(
    own_head: Head,
) -> None:
    first = _dashboard(own_head)
    words = Path(f"/proc/{first}/cmdline").read_bytes().decode().split("\0")[:-1]
    pairs = Path(f"/proc/{first}/environ").read_bytes().decode().split("\0")[:-1]
    environment = dict(pair.split("=", 1) for pair in pairs)
    lines: list[str] = []
    again: list[subprocess.Popen[bytes]] = []

    def listen(line: str) -> None:
        lines.append(line)
        if line == "line 20":
            # `ray start --block` ends all when one part has died; a container would start anew.
            os.kill(own_head.process.pid, signal.SIGSTOP)
            os.kill(first, signal.SIGKILL)
            threading.Timer(5, start).start()

    def start() -> None:
        again.append(
            subprocess.Popen(
                words,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    code = (
        "import time\n"
        "for number in range(120): print('line', number, flush=True); time.sleep(0.25)\n"
        "print('end', end=''); raise SystemExit(3)"
    )
    outcome = submit(
        own_head.url,
        [code],
        working_dir=None,
        env={},
        on_line=listen,
        on_status=lambda status: None,
        entrypoint=(sys.executable, "-c"),
    )
    for process in again:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert again, "the dashboard was not killed"
    start_of_job = lines.index("line 0")
    assert lines[start_of_job:] == [*(f"line {number}" for number in range(120)), "end"]
    assert (outcome.status, outcome.exit_code) == ("FAILED", 3)


@pytest.mark.slow
@pytest.mark.parametrize("word", [signal.SIGKILL, signal.SIGSTOP])
def test_a_cluster_that_is_gone_or_hangs_ends_the_following(
    own_head: Head, monkeypatch: pytest.MonkeyPatch, word: signal.Signals
) -> None:
    monkeypatch.setattr(jobs, "LOST_SECONDS", 8.0)
    lost: list[float] = []

    def listen(line: str) -> None:
        if line == "working":
            os.killpg(own_head.process.pid, word)
            monkeypatch.setattr(dashboard, "REQUEST_SECONDS", 4.0)
            lost.append(time.monotonic())

    with pytest.raises(JobError, match=r"the cluster was lost with job \w+ RUNNING"):
        submit(
            own_head.url,
            ["import time; print('working', flush=True); time.sleep(60)"],
            working_dir=None,
            env={},
            on_line=listen,
            on_status=lambda status: None,
            entrypoint=(sys.executable, "-c"),
        )
    assert time.monotonic() - lost[0] < 100  # one request may have begun before
