"""A RayJob followed to its end: status from Kubernetes, log from wherever its Ray cluster is."""

import asyncio
import atexit
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cluster.dashboard import JobError, connect
from cluster.jobs import LOST_SECONDS, POLL_SECONDS, Follower, JobOutcome, logs
from cluster.kuberay import Document
from cluster.rayjobs import Kube, Refused, Unreachable

_FORWARDING: Final = re.compile(r"127\.0\.0\.1:(\d+) ->")
_ENDED: Final = ("Complete", "Failed", "ValidationFailed")
"""KubeRay's words for a RayJob that it does no more with."""
_LAST_WORDS: Final = 15.0
"""Seconds that a job's end may be told of before its log has ended."""

OnText = Callable[[str], None]


class Following:
    """Follows one RayJob, whatever becomes of connections, heads and whole Ray clusters."""

    def __init__(self, kube: Kube, name: str, on_line: OnText, on_status: OnText) -> None:
        self.kube, self.name = kube, name
        self.on_line, self.on_status = on_line, on_status
        self.log: _Log | None = None

    def run(self) -> JobOutcome:
        """Until KubeRay says that it is over.

        Raises:
            JobError: the RayJob is gone, or Kubernetes silent for two minutes.
        """
        heard, shown = time.monotonic(), ""
        try:
            while True:
                try:
                    job = self.kube.job(self.name)
                    heard = time.monotonic()
                except Unreachable as error:
                    if time.monotonic() - heard > LOST_SECONDS:
                        raise JobError(f"lost sight of RayJob {self.name}: {error}") from error
                    time.sleep(POLL_SECONDS)
                    continue
                except Refused as error:
                    if shown and getattr(error.__cause__, "status", None) == 404:
                        raise JobError(f"RayJob {self.name} was deleted: it is stopped") from error
                    raise
                status = job.get("status") or {}
                if (said := _phase(status)) != shown:
                    self.on_status(shown := said)
                self._read(job, status)
                if status.get("jobDeploymentStatus") in _ENDED:
                    return self._outcome(status)
                time.sleep(POLL_SECONDS)
        finally:
            if self.log is not None:
                self.log.over.set()

    def _read(self, job: Document, status: dict[str, Any]) -> None:
        """Have the log of the job's present try read."""
        cluster, job_id = status.get("rayClusterName"), status.get("jobId")
        if not (cluster and job_id and status.get("jobStatus")):
            return
        if self.log is None or self.log.job_id != job_id:
            if self.log is not None:
                self.log.over.set()
            self.log = _Log(self.kube, job, cluster, job_id, self.on_line)
            self.log.start()

    def _outcome(self, status: dict[str, Any]) -> JobOutcome:
        word = status.get("jobStatus") or "FAILED"
        message = " ".join(filter(None, (status.get("reason"), status.get("message"))))
        code = 0 if word == "SUCCEEDED" and status["jobDeploymentStatus"] == "Complete" else 1
        if self.log is not None:
            self.log.join(_LAST_WORDS)
            told = self.log.outcome
            if code and told is not None and told.exit_code:
                code, message = told.exit_code, told.message or message
        if code:
            message = message or f"RayJob {self.name} ended as {_phase(status)}"
        return JobOutcome(self.name, str(word), code, message or "it succeeded")


class _Log(threading.Thread):
    """Passes the log of one try on, and learns the exit code; no harm if it cannot."""

    def __init__(
        self, kube: Kube, job: Document, cluster: str, job_id: str, on_line: OnText
    ) -> None:
        super().__init__(daemon=True, name="log")
        self.kube, self.job, self.cluster, self.job_id = kube, job, cluster, job_id
        self.on_line = on_line
        self.over = threading.Event()
        self.outcome: JobOutcome | None = None
        self.told = ""

    def run(self) -> None:
        """Until the job server says that the job is over, or nobody wants to know."""
        shown = 0
        while not self.over.is_set():
            try:
                with job_server(self.kube, self.job, self.cluster) as url:
                    follower = Follower(
                        connect(url), self.job_id, self.on_line, lambda word: None, shown=shown
                    )
                    try:
                        self.outcome = asyncio.run(follower.follow(silence=10))
                    finally:
                        shown = follower.shown
                    return
            except JobError as error:
                if str(error) != self.told:
                    self.told = str(error)
                    self.on_line(f"the log cannot be read now: {error}")
            self.over.wait(2 * POLL_SECONDS)


def log_of(kube: Kube, job: Document, on_line: OnText) -> None:
    """Tell the log of a RayJob as it is now.

    Raises:
        JobError: it has no Ray cluster, or its cluster cannot be reached.
    """
    status = job.get("status") or {}
    cluster, job_id = status.get("rayClusterName"), status.get("jobId")
    if not (cluster and job_id and status.get("jobStatus")):
        raise JobError(f"the job has no log yet: it is {_phase(status)}")
    with job_server(kube, job, cluster) as url:
        logs(url, job_id, on_line, follow=False)


@contextmanager
def job_server(kube: Kube, job: Document, cluster: str) -> Iterator[str]:
    """The URL of the job server of a Ray cluster, through `kubectl port-forward`.

    Raises:
        JobError: there is no kubectl, no way to the head, or no token to show.
    """
    token = kube.token(job)
    if token is not None:  # Ray's client reads both, once
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", token
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise JobError("there is no kubectl on PATH to reach the Ray cluster with")
    words = [kubectl, "--namespace", kube.namespace]
    words += ["--context", kube.context] if kube.context else []
    words += ["port-forward", "--pod-running-timeout=20s", f"service/{cluster}-head-svc", ":8265"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    atexit.register(process.terminate)  # a command that ends does not wait for the log's thread
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = _FORWARDING.search(process.stdout.readline())
        if found is None:
            raise JobError(f"no way to {cluster}: {process.stderr.read().strip()}")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        atexit.unregister(process.terminate)
        process.terminate()
        process.communicate()


def _phase(status: dict[str, Any]) -> str:
    """Where a RayJob is, in KubeRay's words and Ray's."""
    words = (status.get("jobDeploymentStatus") or "Pending", status.get("jobStatus"))
    return ", ".join(word for word in words if word)
