"""Ray jobs: hand a mailray command to a cluster, follow its log, come back with its exit code.

outcome = submit("http://head:8265", ["train", "--recipe", "spam-bert"], working_dir=checkout(),
                 env={}, on_line=print, on_status=print)
raise SystemExit(outcome.exit_code)
"""

import asyncio
import shlex
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.dashboard import DASHBOARD, JobError, connect, dashboard_url, faults, reason

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ENTRYPOINT = ("python", "-m", "cluster.main")
POLL_SECONDS = 1.0
LOST_SECONDS = 120.0
"""How long a cluster may be silent before a followed job counts as lost; a restart takes less."""
INTERRUPTED = 130
ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
"""Ray's words for a job that is over."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job, as far as it was followed."""

    job_id: str
    status: str
    """Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    exit_code: int
    """Of the command; 1 where it failed without one, 0 when detached, 130 when interrupted."""
    message: str


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list."""

    job_id: str
    status: str
    submitted: str
    """ISO 8601, UTC"""
    command: str
    message: str

    @property
    def over(self) -> bool:
        """Nothing more happens to it."""
        return self.status in ENDED


def checkout() -> Path | None:
    """The repository that this package lies in, or None where mailray is installed."""
    root = Path(__file__).resolve().parent.parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None
    return root if project.get("name") == "mailray" else None


def submit(
    address: str | None,
    command: Sequence[str],
    *,
    working_dir: Path | None,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    on_status: Callable[[str], None],
    detach: bool = False,
    stops: Callable[[], bool] = lambda: False,
    entrypoint: Sequence[str] = ENTRYPOINT,
) -> JobOutcome:
    """Run `mailray <command...>` as a Ray job, and follow it unless `detach`.

    `working_dir` is uploaded without what .gitignore and .rayignore name. Ctrl-C ends the
    following; the job goes on unless `stops`, which is asked then, says that it shall not.

    Raises:
        JobError: nobody answers, the job is refused, or the cluster is lost on the way.
    """
    url = dashboard_url(address)
    runtime_env: dict[str, Any] = {"env_vars": dict(env)}
    if working_dir is not None:
        runtime_env["working_dir"] = str(working_dir)
    client = connect(url)
    try:
        job_id = client.submit_job(
            entrypoint=shlex.join([*entrypoint, *command]), runtime_env=runtime_env
        )
    except faults() as error:
        raise JobError(f"{url} did not take the job: {reason(error)}") from error
    where = "" if url == DASHBOARD else f" --address {url}"
    stop = f"`mailray jobs logs --follow {job_id}{where}` follows it, `jobs stop` stops it"
    if detach:
        return JobOutcome(job_id, "PENDING", 0, f"job {job_id} is submitted; {stop}")
    follower = Follower(client, job_id, on_line, on_status)
    try:
        return asyncio.run(follower.follow())
    except KeyboardInterrupt:
        if stops():
            client.stop_job(job_id)
            return JobOutcome(job_id, "STOPPED", INTERRUPTED, f"job {job_id} is told to stop")
        message = f"no longer following job {job_id}, which goes on; {stop}"
        return JobOutcome(job_id, follower.status, INTERRUPTED, message)


def listing(address: str | None) -> list[JobRow]:
    """The jobs that the cluster remembers, the newest first.

    Raises:
        JobError: nobody answers there.
    """
    with _asked(address) as client:
        found = [job for job in client.list_jobs() if job.submission_id]
    return [_row(job) for job in sorted(found, key=lambda job: -(job.start_time or 0))]


def status(address: str | None, job_id: str) -> JobRow:
    """How a job stands; raises JobError as `listing`, also where there is no such job."""
    with _asked(address) as client:
        return _row(client.get_job_info(job_id))


def stop(address: str | None, job_id: str) -> bool:
    """Stop a job; whether it was not over already. Raises JobError as `status`."""
    with _asked(address) as client:
        return bool(client.stop_job(job_id))


def logs(
    address: str | None, job_id: str, on_line: Callable[[str], None], *, follow: bool
) -> JobOutcome:
    """Tell the log of a job, with `follow` until it is over. Raises JobError as `status`."""
    with _asked(address) as client:
        info = client.get_job_info(job_id)
        if follow:
            return asyncio.run(Follower(client, job_id, on_line, lambda word: None).follow())
        for line in client.get_job_logs(job_id).splitlines():
            on_line(line)
    return JobOutcome(job_id, str(info.status), 0, "")


@contextmanager
def _asked(address: str | None) -> Iterator["JobSubmissionClient"]:
    """A client whose faults are JobErrors."""
    url = dashboard_url(address)
    client = connect(url)
    try:
        yield client
    except JobError:
        raise
    except faults() as error:
        raise JobError(f"{url} says: {reason(error)}") from error


def _row(job: Any) -> JobRow:
    submitted = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC)
    message = " ".join((job.message or "").partition(", last available logs")[0].split())
    return JobRow(
        str(job.submission_id), str(job.status), f"{submitted:%Y-%m-%dT%H:%M:%SZ}",
        str(job.entrypoint), message,
    )  # fmt: skip


class Follower:
    """Prints each line of a job's log once, whatever becomes of the connection."""

    def __init__(
        self,
        client: "JobSubmissionClient",
        job_id: str,
        on_line: Callable[[str], None],
        on_status: Callable[[str], None],
        shown: int = 0,
    ) -> None:
        """`shown` characters of the log are known already."""
        self._client = client
        self._job_id = job_id
        self._on_line = on_line
        self._on_status = on_status
        self.shown = shown  # characters of the log; each connection tells it from the start
        self._rest = ""  # a line whose end has not come yet
        self.status = ""

    async def follow(self, silence: float | None = None) -> JobOutcome:
        """Until the job is over.

        Raises:
            JobError: the cluster has been silent for `silence` seconds, LOST_SECONDS by default.
        """
        silence = LOST_SECONDS if silence is None else silence
        tail = asyncio.create_task(self._tail())
        over = asyncio.create_task(self._until_over(silence))
        try:
            await asyncio.wait([tail, over], return_when=asyncio.FIRST_COMPLETED)
            if tail.done():
                tail.result()  # it ends first only by an exception, say of `on_line`
            info = await over
            # The end of the log may still be on its way.
            await asyncio.wait([tail], timeout=2 * POLL_SECONDS)
        finally:
            tail.cancel()
            over.cancel()
            await asyncio.gather(tail, over, return_exceptions=True)
        with suppress(*faults()):  # the node that holds the log may be gone
            self._show(0, await asyncio.to_thread(self._client.get_job_logs, self._job_id))
        if self._rest:
            self._on_line(self._rest)
        # Ray repeats the log in the message of a failed command.
        message = " ".join((info.message or "").partition(", last available logs")[0].split())
        return JobOutcome(self._job_id, self.status, _exit_code(info), message)

    async def _until_over(self, silence: float) -> Any:
        """Poll the status, which alone tells the end: `tail_job_logs` may end before."""
        heard = time.monotonic()
        while True:
            try:
                info = await asyncio.to_thread(self._client.get_job_info, self._job_id)
            except faults() as error:
                if time.monotonic() - heard > silence:
                    raise JobError(
                        f"the cluster was lost with job {self._job_id} {self.status or 'PENDING'}: "
                        f"{reason(error)}"
                    ) from error
            else:
                heard = time.monotonic()
                if str(info.status) != self.status:
                    self.status = str(info.status)
                    self._on_status(self.status)
                if info.status.is_terminal():
                    return info
            await asyncio.sleep(POLL_SECONDS)

    async def _tail(self) -> None:
        """Read the log, again and again from its start, until the job is over."""
        import aiohttp

        while self.status not in ENDED:
            position = 0
            with suppress(*faults(), aiohttp.ClientError):
                async for chunk in self._client.tail_job_logs(self._job_id):
                    self._show(position, chunk)
                    position += len(chunk)
            await asyncio.sleep(POLL_SECONDS)

    def _show(self, position: int, chunk: str) -> None:
        """Pass on what of a chunk that starts at `position` was not shown before."""
        fresh = chunk[max(self.shown - position, 0) :]
        self.shown = max(self.shown, position + len(chunk))
        *lines, self._rest = (self._rest + fresh).split("\n")
        for line in lines:
            self._on_line(line)


def _exit_code(info: Any) -> int:
    if str(info.status) == "SUCCEEDED":
        return 0
    code = int(info.driver_exit_code or 1)
    return code if code > 0 else 128 - code  # killed by a signal: as a shell says it
