"""Jobs on Kubernetes, against a stand-in for the API server that fails as it is told."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import following
from cluster.dashboard import JobError
from cluster.following import Following
from cluster.jobs import JobOutcome
from cluster.rayjobs import Kube, connect, entrypoint, ray_job, row
from tests.cluster.kubernetes import Server, serving

DOCUMENTS: list[dict[str, Any]] = [
    {
        "apiVersion": "ray.io/v1", "kind": "RayJob",
        "metadata": {"name": "mailray-training"},
        "spec": {"entrypoint": "mailray train", "rayClusterSpec": {}},
    },
    {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "mailray-training"}, "spec": {"minAvailable": 1},
    },
]  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as made:
        (tmp_path / "kubeconfig").write_text(made.kubeconfig())
        # The client has read its default place when it was imported.
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
            str(tmp_path / "kubeconfig"),
        )
        monkeypatch.setattr(following, "POLL_SECONDS", 0.02)
        yield made


@pytest.fixture
def kube(server: Server) -> Kube:
    return connect()


def test_a_job_is_the_overlays_own_but_for_name_and_command() -> None:
    job, budget = ray_job(DOCUMENTS, ["tune", "--recipe", "a b"], "mailray-tune-1")
    assert job["metadata"]["name"] == "mailray-tune-1"
    assert job["spec"]["entrypoint"] == (
        "mailray tune --recipe 'a b' --name mailray-tune-1 "
        '$(test -f "$MAILRAY_HOME"/runs/mailray-tune-1/study.json && echo --resume mailray-tune-1)'
    )
    assert budget == DOCUMENTS[1]
    assert DOCUMENTS[0]["metadata"]["name"] == "mailray-training"


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a" * 48, "under_score", "end-"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="at most 47 of a-z"):
        ray_job(DOCUMENTS, ["train"], name)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train"], 'mailray train --name n $(test -f "$MAILRAY_HOME"/runs/n/run.json && '),
        (["train", "--name", "my run"], "'my run' $(test -f \"$MAILRAY_HOME\"/runs/'my run'/run"),
        (["train", "--name=x"], 'mailray train --name=x $(test -f "$MAILRAY_HOME"/runs/x/run.json'),
    ],
)
def test_training_goes_on_where_an_earlier_try_has_begun(command: list[str], words: str) -> None:
    made = entrypoint(command, "n")
    assert words in made
    assert made.endswith("&& echo --resume)")


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"]])
def test_other_commands_stay_as_they_are(command: list[str]) -> None:
    assert entrypoint(command, "n") == " ".join(["mailray", *command])


def test_all_is_applied_the_job_last(kube: Kube, server: Server) -> None:
    kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    assert list(server.objects) == [
        ("poddisruptionbudgets", "mailray-training"), ("rayjobs", "one"),
    ]  # fmt: skip
    with pytest.raises(JobError, match='apply RayJob one in mail: rayjobs "one" already exists'):
        kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    assert [found["metadata"]["name"] for found in kube.jobs()] == ["one"]
    kube.delete("one")
    with pytest.raises(JobError, match='show the RayJob one in mail: rayjobs "one" not found'):
        kube.job("one")


def test_without_the_right_to_it_the_servers_word_is_passed_on(kube: Kube, server: Server) -> None:
    said = 'rayjobs.ray.io is forbidden: User "me" cannot create resource "rayjobs"'
    server.faults.append(("POST", 403, said))
    with pytest.raises(JobError, match='cannot create resource "rayjobs"'):
        kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    assert ("rayjobs", "one") not in server.objects


def test_a_kubernetes_without_kuberay_says_how_to_get_it(kube: Kube, server: Server) -> None:
    del server.kinds["ray.io/v1"]
    with pytest.raises(JobError, match="knows no RayJob: install KubeRay"):
        kube.apply(ray_job(DOCUMENTS, ["train"], "one"))


def test_no_kubernetes_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    with pytest.raises(JobError, match="no kubeconfig, and this is no pod"):
        connect()


def test_an_unknown_context_is_named(server: Server) -> None:
    with pytest.raises(JobError, match="no Kubernetes context other"):
        connect(context="other")


def _stands(server: Server, deployment: str, job: str | None = None, **more: Any) -> None:
    status = {"jobDeploymentStatus": deployment, "jobStatus": job, **more}
    server.objects["rayjobs", "one"]["status"] = status


def _followed(kube: Kube, statuses: list[str]) -> JobOutcome:
    return Following(kube, "one", lambda line: None, statuses.append).run()


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"deployment": "Complete", "job": "SUCCEEDED"}, 0, "it succeeded"),
        ({"deployment": "Failed", "job": "FAILED", "reason": "AppFailed"}, 1, "AppFailed"),
        ({"deployment": "Complete", "job": "STOPPED"}, 1, "ended as Complete, STOPPED"),
        (
            {"deployment": "Failed", "reason": "DeadlineExceeded", "message": "too long"},
            1, "DeadlineExceeded too long",
        ),
    ],
)  # fmt: skip
def test_the_exit_code_is_what_kubernetes_says_at_the_end(
    kube: Kube, server: Server, end: dict[str, Any], code: int, said: str
) -> None:
    kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    statuses: list[str] = []

    def operator() -> None:
        for deployment in ("Initializing", "Running"):
            _stands(server, deployment)
            time.sleep(0.2)
        _stands(server, **end)

    thread = threading.Thread(target=operator)
    thread.start()
    outcome = _followed(kube, statuses)
    thread.join()
    assert outcome.exit_code == code
    assert said in outcome.message
    assert statuses[-3:-1] == ["Initializing", "Running"]


def test_an_api_server_that_is_away_for_a_while_costs_nothing(kube: Kube, server: Server) -> None:
    kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    _stands(server, "Complete", "SUCCEEDED")
    server.faults += [("GET", 500, ""), ("GET", 503, "etcd leader changed"), ("GET", 429, "slowly")]
    assert _followed(kube, []).exit_code == 0
    assert not server.faults


def test_a_kubernetes_that_stays_away_ends_the_following(
    kube: Kube, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    monkeypatch.setattr(following, "LOST_SECONDS", 0.2)
    server.faults += [("GET", 503, "no leader")] * 1_000
    with pytest.raises(JobError, match=r"lost sight of RayJob one: .*no leader"):
        _followed(kube, [])


def test_a_deleted_job_ends_the_following(kube: Kube, server: Server) -> None:
    kube.apply(ray_job(DOCUMENTS, ["train"], "one"))

    def delete(word: str) -> None:
        kube.delete("one")

    with pytest.raises(JobError, match="RayJob one was deleted: it is stopped"):
        Following(kube, "one", print, delete).run()
    with pytest.raises(JobError, match="not found"):
        _followed(kube, [])


def test_a_row_says_how_a_job_stands() -> None:
    job = ray_job(DOCUMENTS, ["evaluate"], "one")[0]
    job["metadata"]["creationTimestamp"] = "2026-11-24T10:00:00Z"
    assert row(job).status == "PENDING"
    job["status"] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    found = row(job)
    assert (found.status, found.command) == ("RUNNING", "mailray evaluate")
    assert found.submitted == "2026-11-24T10:00:00Z"


def test_a_token_comes_from_the_environment_or_the_secret(
    kube: Kube, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    job = ray_job(DOCUMENTS, ["train"], "one")[0]
    assert kube.token(job) is None
    job["spec"]["rayClusterSpec"]["authOptions"] = {"mode": "token", "secretName": "mailray-token"}
    server.add("secrets", "mailray-token", data={"auth_token": "c2VjcmV0"})
    assert kube.token(job) == "secret"
    server.faults.append(("GET", 403, "no"))
    with pytest.raises(JobError, match="RAY_AUTH_TOKEN would do as well"):
        kube.token(job)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert kube.token(job) == "mine"


def test_an_api_server_that_is_gone_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOST_SECONDS", 0.0)
    server.url = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    kube = connect()
    with pytest.raises(JobError, match=r"Kubernetes does not answer: .*refused"):
        kube.apply(ray_job(DOCUMENTS, ["train"], "one"))
    with pytest.raises(JobError, match="lost sight of RayJob one: Kubernetes does not answer"):
        _followed(kube, [])
