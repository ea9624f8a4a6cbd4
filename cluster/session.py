"""Ray for the time of a block: a local one, started and stopped, or a running cluster, joined.

    with ray_session(address=None, cpus=3) as session:
        print(session.address, session.dashboard_url)

Ray is imported here, not at the top: what keeps it quiet must be in the environment before, and
a command that does not need it should not wait for it.
"""

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from cluster.forkserver import executable

ANSWER_SECONDS = 5.0
QUIET = {
    # Inside of a cluster the operator decides; these are defaults, never overrides.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's future behaviour; unset, each worker without a GPU prints a FutureWarning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The log file is read to find one worker's fault: lines must not be folded across workers.
    "RAY_DEDUP_LOGS": "0",
    # A small /dev/shm is a finding of `mailray doctor`, not a reason to refuse to start.
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
}
TEMP_DIR = "/tmp/ray"
# Ray puts `/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store` below its temporary
# directory, and a Unix socket's path ends at 107 bytes.
LONGEST_TEMP_DIR = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")

logger = logging.getLogger(__name__)


class SessionError(RuntimeError):
    """No Ray to work with; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Session:
    """The Ray that a command runs on."""

    address: str
    """`host:port` of its head (the GCS)."""
    dashboard_url: str | None
    local: bool
    """Started by this command, and stopped with it."""
    cpus: int
    """Of all nodes together."""


def quiet() -> None:
    """Set what keeps Ray quiet, before anything imports it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(
    *, address: str | None, cpus: int, on_message: Callable[[str], None] | None = None
) -> Iterator[Session]:
    """Start a local Ray, or join the cluster at `address` (or RAY_ADDRESS).

    `auto` is the cluster that `ray start` left on this machine. A local Ray offers at least `cpus`
    CPUs, more than the machine has if need be: they are Ray's bookkeeping, and too few of them
    hang a run. A Ray that this process has initialised already is used and left running.

    Raises:
        SessionError: nobody answers there, or it runs another version of Ray or Python.
    """
    quiet()
    import ray

    say = on_message or logger.info
    if ray.is_initialized():
        yield _session(local=False, dashboard_url=None)
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    sigterm = _Sigterm()
    try:
        context = _start(cpus, say) if address == "local" else _join(address)
        sigterm.take()  # `ray.init` has put its own handler in place
        yield _session(local=address == "local", dashboard_url=context.dashboard_url)
    finally:
        sigterm.ignore()  # a second one must not leave Ray's processes behind
        ray.shutdown()
        sigterm.restore()


def _start(cpus: int, say: Callable[[str], None]) -> Any:
    import ray
    from ray._private.utils import get_num_cpus

    options: dict[str, Any] = {}
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.path.join(base, "ray").encode()) > LONGEST_TEMP_DIR:  # noqa: PTH118
        options["_temp_dir"] = TEMP_DIR
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0  # noqa: PTH112
    if shared < 256 << 20:
        say(f"/dev/shm has only {shared >> 20} MiB, Ray uses files instead: slower")
    # Ray's own count, since os.cpu_count() does not see the CPU limit of a container, and Ray
    # starts a process for each CPU.
    offered = max(int(get_num_cpus()), cpus)
    try:
        # The address "local" and not None, which would join what `ray start` left on the machine.
        return ray.init(
            "local",
            num_cpus=offered,
            include_dashboard=True,
            log_to_driver=True,
            logging_level=logging.WARNING,
            runtime_env={"py_executable": executable()},
            **options,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise SessionError(f"Ray did not start: {_reason(error)}") from error


def _join(address: str) -> Any:
    import ray
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    if "://" in address:
        raise SessionError(
            f"{address} is no address to join; give the head's host:port (usually port 6379), "
            f"or submit a job to its dashboard (http://host:8265)"
        )
    absent = (
        f"no Ray cluster answers at {address}; start one with `ray start --head`, "
        "or leave the address out for a local Ray"
    )
    if address != "auto":
        if not _answers(address):
            raise SessionError(absent)
        if address.startswith(("127.0.0.1:", "localhost:", "[::1]:")):
            # `ray start` demands this user's token as soon as there is one, and Ray sends it to
            # no address that was spelled out. Other hosts get it only by RAY_AUTH_MODE=token.
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        absent = (
            f"{address} answers but cannot be joined: it is no Ray head, or wants its token "
            "(RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH where it is another user's)"
        )
    try:
        return ray.init(
            address,
            log_to_driver=True,
            logging_level=logging.WARNING,
            runtime_env={"py_executable": executable()},
        )
    except ConnectionError as error:
        raise SessionError(absent) from error
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        if "ersion mismatch" in str(error):
            raise SessionError(
                f"the cluster at {address} runs other versions than this command: {_reason(error)}"
            ) from error
        raise SessionError(f"cannot join the cluster at {address}: {_reason(error)}") from error


def _answers(address: str) -> bool:
    """Whether a gRPC server is there; Ray itself takes two minutes to say no, and then exits."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SessionError(f"an address is written host:port, got {address!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return True
            # HTTP/2's opening and an empty SETTINGS frame; a server answers with its own (type 4).
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            connection.settimeout(ANSWER_SECONDS)
            answer = connection.recv(9)
            return len(answer) > 3 and answer[3] == 4
    except (OSError, OverflowError):
        return False


def _session(*, local: bool, dashboard_url: str | None) -> Session:
    import ray

    return Session(
        address=ray.get_runtime_context().gcs_address,
        dashboard_url=f"http://{dashboard_url}" if dashboard_url else None,
        local=local,
        cpus=int(ray.cluster_resources().get("CPU", 0)),
    )


class _Sigterm:
    """SIGTERM raises SystemExit(143), so that `finally` blocks run; the old handler comes back."""

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)
        self.take()

    def take(self) -> None:
        self._set(self._leave)

    def ignore(self) -> None:
        self._set(signal.SIG_IGN)

    def restore(self) -> None:
        self._set(self._before)

    @staticmethod
    def _set(handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            signal.signal(signal.SIGTERM, handler)

    @staticmethod
    def _leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
