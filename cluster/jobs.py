"""Ray jobs: hand a mailray command to a cluster, follow its log, come back with its exit code.

outcome = submit("http://head:8265", ["train", "--recipe", "spam-bert"], working_dir=checkout(),
                 env={}, on_line=print, on_status=print)
raise SystemExit(outcome.exit_code)
"""

import asyncio
import shlex
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.dashboard import JobError, connect, dashboard_url, faults, reason

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ENTRYPOINT = ("python", "-m", "cluster.main")
POLL_SECONDS = 1.0
LOST_SECONDS = 120.0
"""How long a cluster may be silent before a followed job counts as lost; a restart takes less."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job, as far as it was followed."""

    job_id: str
    status: str
    """Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    exit_code: int
    """Of the command; 1 where it failed without one, 0 when detached, 130 when interrupted."""
    message: str


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
    entrypoint: Sequence[str] = ENTRYPOINT,
) -> JobOutcome:
    """Run `mailray <command...>` as a Ray job, and follow it unless `detach`.

    `working_dir` is uploaded without what .gitignore and .rayignore name. Ctrl-C ends the
    following, never the job.

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
    stop = f"`ray job logs --follow {job_id} --address {url}` follows it, `ray job stop` stops it"
    if detach:
        return JobOutcome(job_id, "PENDING", 0, f"job {job_id} is submitted; {stop}")
    follower = _Follower(client, job_id, on_line, on_status)
    try:
        return asyncio.run(follower.follow())
    except KeyboardInterrupt:
        message = f"no longer following job {job_id}, which goes on; {stop}"
        return JobOutcome(job_id, follower.status, INTERRUPTED, message)


class _Follower:
    """Prints each line of a job's log once, whatever becomes of the connection."""

    def __init__(
        self,
        client: "JobSubmissionClient",
        job_id: str,
        on_line: Callable[[str], None],
        on_status: Callable[[str], None],
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._on_line = on_line
        self._on_status = on_status
        self._shown = 0  # characters of the log; each connection tells it from the start
        self._rest = ""  # a line whose end has not come yet
        self.status = ""

    async def follow(self) -> JobOutcome:
        tail = asyncio.create_task(self._tail())
        over = asyncio.create_task(self._until_over())
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

    async def _until_over(self) -> Any:
        """Poll the status, which alone tells the end: `tail_job_logs` may end before."""
        heard = time.monotonic()
        while True:
            try:
                info = await asyncio.to_thread(self._client.get_job_info, self._job_id)
            except faults() as error:
                if time.monotonic() - heard > LOST_SECONDS:
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

        while self.status not in ("STOPPED", "SUCCEEDED", "FAILED"):
            position = 0
            with suppress(*faults(), aiohttp.ClientError):
                async for chunk in self._client.tail_job_logs(self._job_id):
                    self._show(position, chunk)
                    position += len(chunk)
            await asyncio.sleep(POLL_SECONDS)

    def _show(self, position: int, chunk: str) -> None:
        """Pass on what of a chunk that starts at `position` was not shown before."""
        fresh = chunk[max(self._shown - position, 0) :]
        self._shown = max(self._shown, position + len(chunk))
        *lines, self._rest = (self._rest + fresh).split("\n")
        for line in lines:
            self._on_line(line)


def _exit_code(info: Any) -> int:
    if str(info.status) == "SUCCEEDED":
        return 0
    code = int(info.driver_exit_code or 1)
    return code if code > 0 else 128 - code  # killed by a signal: as a shell says it
