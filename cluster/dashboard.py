"""Ray's job server: where an address finds it, a client that answers soon, and its versions."""

import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"
ANSWER_SECONDS = 5.0
REQUEST_SECONDS = 60.0
"""How long a job server that hangs, or has gone with its node, is waited for."""


class JobError(RuntimeError):
    """A job could not be handed over or followed; the message says why."""


def dashboard_url(address: str | None) -> str:
    """The job server of an address: http://host:8265, host:8265, or None and `auto`.

    The last two read RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, whose port is the head's own and
    not its dashboard's, then take this machine.
    """
    if address in (None, "", "auto"):
        address = os.environ.get("RAY_API_SERVER_ADDRESS")
        head = os.environ.get("RAY_ADDRESS", "auto")
        if not address and head not in ("", "auto", "local"):
            address = head
            if not head.startswith(("http://", "https://")):
                host = urlsplit(head if "://" in head else f"//{head}").hostname
                address = f"http://{host}:8265"
    if not address:
        return DASHBOARD
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid:
        raise JobError(f"a job server's address is http://host:8265, got {address!r}")
    return url.rstrip("/")


def cluster_versions(address: str | None) -> tuple[str, str]:
    """The Ray and the Python version of the cluster behind a job server.

    Raises:
        JobError: nobody answers there, or says no versions.
    """
    url = dashboard_url(address)
    client = connect(url)
    known: tuple[type[Exception], ...] = (KeyError, *faults())
    try:
        answer = client._do_request("GET", "/api/v0/cluster_metadata")
        answer.raise_for_status()
        data = answer.json()["data"]
        return str(data["rayVersion"]), str(data["pythonVersion"])
    except known as error:
        raise JobError(f"{url} does not say its versions: {reason(error)}") from error


def connect(url: str) -> "JobSubmissionClient":
    """A client of the job server at `url`.

    Raises:
        JobError: nobody answers, or nobody that this client understands.
    """
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's own waits for an answer for ever."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=REQUEST_SECONDS, **options)

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    absent = (
        f"no Ray job server answers at {url}; is the cluster up, and its dashboard's port open "
        f"(`kubectl port-forward service/<head> 8265`)?"
    )
    try:  # Ray's client waits for a silent host as long as the system does: minutes
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError as error:
        raise JobError(absent) from error
    if host in ("127.0.0.1", "::1", "localhost"):
        # `ray start` demands the token of this user as soon as there is one; Ray's own client
        # does not send it unasked. Other hosts get it only by RAY_AUTH_MODE=token.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # RAY_ADDRESS would win over the argument
    try:
        return Client(url)
    except ConnectionError as error:
        raise JobError(absent) from error
    except faults() as error:
        raise JobError(f"{url} is no Ray job server for this client: {reason(error)}") from error
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def faults() -> tuple[type[Exception], ...]:
    """What Ray's client raises; an AuthenticationError is no RuntimeError."""
    from ray.exceptions import RayError

    return (RuntimeError, ValueError, OSError, RayError)


def reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
