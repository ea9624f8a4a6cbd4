"""What the doctor makes of the job that it hands to a cluster, whatever that job says."""

import json
from pathlib import Path

import pytest

from cluster import jobs
from cluster.commands import doctor
from cluster.dashboard import JobError
from cluster.jobs import JobOutcome, JobRow

SAID: dict[str, list[str]] = {"findings": [], "nodes": []}


class Cluster:
    """A job server whose one job has this status and this log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: str, log: list[str]) -> None:
        self.stopped: list[str] = []
        row = JobRow("raysubmit_1", status, "", "", "exit code 2")
        outcome = JobOutcome("raysubmit_1", status, 0, "")
        monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(doctor, "JOB_SECONDS", 0.1)
        monkeypatch.setattr(jobs, "submit", lambda *words, **options: outcome)
        monkeypatch.setattr(jobs, "status", lambda address, job_id: row)
        monkeypatch.setattr(jobs, "stop", lambda address, job_id: self.stopped.append(job_id))
        monkeypatch.setattr(
            jobs, "logs", lambda address, job_id, tell, follow: [tell(line) for line in log]
        )


def told() -> object:
    return doctor._job("http://head:8265", ["doctor", "--nodes"], Path(), lambda text: None)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_the_answer_is_found_between_other_lines(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    Cluster(monkeypatch, status, ["nodes ...", '{"a": 1}', json.dumps(SAID), "[5] I: raylet", "7"])
    assert told() == SAID


def test_a_job_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, "PENDING", [])
    with pytest.raises(JobError, match=r"raysubmit_1 is PENDING after 0 s: exit code 2"):
        told()
    assert cluster.stopped == ["raysubmit_1"]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ([json.dumps({"error": {"message": "no head\nthe log", "code": 1}})], "no head$"),
        (["ModuleNotFoundError: No module named 'typer'"], "exit code 2; ModuleNotFound"),
        ([], "says nothing of nodes: exit code 2"),
    ],
)
def test_a_job_that_fails_is_told_by_its_reason(
    monkeypatch: pytest.MonkeyPatch, log: list[str], reason: str
) -> None:
    Cluster(monkeypatch, "FAILED", log)
    with pytest.raises(JobError, match=reason):
        told()
