"""`mailray submit --kubernetes` and `mailray jobs`, as a user has them.

The API server is a stand-in that keeps RayJobs; the operator a thread that posts them to a real Ray
head, as KubeRay's HTTPMode does; kubectl's way to the head a script, since the head is here.
"""

import base64
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard import connect
from tests.cluster.kubernetes import Server, serving
from tests.end_to_end.terminal import ROOT, Said, run, started

pytestmark = [
    pytest.mark.slow,
    # Ray's client passes the old default to aiohttp.
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
]


class Operator(threading.Thread):
    """Posts each RayJob's command to the head, and tells in its status how it goes."""

    def __init__(self, server: Server, head: str, home: Path) -> None:
        super().__init__(daemon=True)
        self.server, self.client, self.home = server, connect(head), home
        self.over = threading.Event()
        self.posted: dict[str, str] = {}

    def run(self) -> None:
        """Until the test is over."""
        while not self.over.wait(0.3):
            for (plural, name), job in list(self.server.objects.items()):
                if plural == "rayjobs":
                    self.reconcile(name, job)
            for name in self.posted.keys() - {name for _, name in self.server.objects}:
                self.client.stop_job(self.posted.pop(name))  # with its cluster, says KubeRay

    def reconcile(self, name: str, job: dict[str, dict[str, str]]) -> None:
        """One look at one RayJob."""
        status = job.setdefault("status", {"jobDeploymentStatus": "Initializing"})
        if "jobId" not in status:
            time.sleep(1)
            command = job["spec"]["entrypoint"].replace("mailray ", "python -m cluster.main ", 1)
            kept = {"MAILRAY_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
            job_id = self.client.submit_job(entrypoint=command, runtime_env={"env_vars": kept})
            self.posted[name] = job_id
            status |= {"jobId": job_id, "rayClusterName": f"{name}-abcde"}
        info = self.client.get_job_info(status["jobId"])
        status["jobStatus"] = str(info.status)
        status["jobDeploymentStatus"] = "Running"
        if info.status.is_terminal():
            word = "Failed" if str(info.status) == "FAILED" else "Complete"
            status |= {"jobDeploymentStatus": word, "message": info.message or ""}


@pytest.fixture
def kubernetes(
    home: Path, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The stand-in with its operator, in KUBECONFIG and on PATH."""
    with serving() as server:
        (tmp_path / "kubeconfig").write_text(server.kubeconfig())
        kubectl = tmp_path / "bin" / "kubectl"
        kubectl.parent.mkdir()
        port = head.rpartition(":")[2]
        forward = f"echo 'Forwarding from 127.0.0.1:{port} -> 8265'; exec sleep 600"
        kubectl.write_text(f"#!/bin/sh\n{forward}\n")
        kubectl.chmod(0o755)
        server.add("secrets", "mailray-ray-token", data={"auth_token": _token()})
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
        operator = Operator(server, head, home)
        operator.start()
        yield server
        operator.over.set()
        operator.join()


def _token() -> str:
    """The head's: `ray start` demands this user's, where there is one."""
    file = Path.home() / ".ray" / "auth_token"
    token = file.read_text().strip() if file.is_file() else "unused"
    return base64.b64encode(token.encode()).decode()


def _submit(home: Path, *words: str) -> Said:
    return run(home, "submit", "--kubernetes", *words)


def test_a_job_returns_its_log_and_its_exit_code(home: Path, kubernetes: Server) -> None:
    told = _submit(home, "--json", "--", "data", "show", "data.source=synthetic:64")
    assert told.code == 0, told.err
    name = told.json["job_id"]
    assert name.startswith("mailray-data-")
    assert told.json["status"] == "SUCCEEDED"
    assert "Initializing" in told.err or "Running" in told.err
    assert "near-duplicates" in told.err  # of the table that the command prints

    wrong = _submit(home, "--json", "--", "data", "show", "data.source=nowhere")
    assert wrong.code == 2
    assert "nowhere" in wrong.err
    listed = run(home, "jobs", "list", "--kubernetes", "--json").json["jobs"]
    assert {job["status"] for job in listed} == {"SUCCEEDED", "FAILED"}
    again = run(home, "jobs", "logs", name, "--kubernetes")
    assert again.code == 0, again.err
    assert "near-duplicates" in again.out


def test_a_job_is_stopped_by_another_command(home: Path, kubernetes: Server) -> None:
    words = ("train", "--recipe", "smoke", "data.source=synthetic:20000", "optimizer.epochs=20")
    with started(home, "submit", "--kubernetes", "--name", "long", "--", *words) as process:
        deadline = time.monotonic() + 90
        while "RUNNING" not in str(kubernetes.objects.get(("rayjobs", "long"))):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
        assert run(home, "jobs", "stop", "long", "--kubernetes").code == 0
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "RayJob long was deleted: it is stopped" in err


def test_a_dry_run_prints_what_would_be_applied(home: Path, kubernetes: Server) -> None:
    told = _submit(home, "--dry-run", "--json", "--name", "dry", "--", "train")
    assert told.code == 0, told.err
    (job,) = [each for each in told.json["documents"] if each["kind"] == "RayJob"]
    assert job["metadata"]["name"] == "dry"
    assert job["spec"]["entrypoint"].startswith("mailray train --name dry ")
    assert not [key for key in kubernetes.objects if key[0] == "rayjobs"]
    wrong = _submit(home, "--dry-run", "--overlay", "moon", "--", "train")
    assert wrong.code == 2
    assert "--overlay: one of dev, gpu, gpu-autoscaling or a directory such as ./mine" in wrong.err
