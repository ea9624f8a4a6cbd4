"""Real nodes are asked: a head and another, busy, hung, without storage, and from outside."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard import JobError, cluster_versions
from cluster.jobs import checkout, submit
from tests.conftest import Head, started_head
from tests.end_to_end.terminal import run

pytestmark = [
    pytest.mark.slow,
    # Ray's client passes the old default to aiohttp.
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
]

ASK = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
import ray
from cluster.nodes import survey
ray.init(log_to_driver=False)
occupied = ray.remote(num_cpus=1)(lambda seconds: time.sleep(seconds))
busy = [occupied.remote(600) for _ in range(int(ray.cluster_resources()["CPU"]))]
nodes = survey(Path(sys.argv[1]), ["ray", "no-such-package"], float(sys.argv[2]))
print(json.dumps([asdict(node) for node in nodes]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    """A head that loses nodes: not the one of other tests."""
    with started_head() as head:
        yield head


def surveyed(head: Head, storage: Path, seconds: float) -> list[dict[str, Any]]:
    """What nodes all of whose CPUs are taken tell, by a job on the head."""
    lines: list[str] = []
    outcome = submit(
        head.url,
        ["-c", ASK, str(storage), str(seconds)],
        working_dir=checkout(),
        env={},
        on_line=lines.append,
        on_status=lambda status: None,
        entrypoint=[sys.executable],
    )
    assert outcome.exit_code == 0, lines[-1]
    told: list[dict[str, Any]] = json.loads(next(line for line in lines if line[:2] == "[{"))
    return told


def test_each_node_tells_of_itself_and_of_the_others_files(cluster: Head, tmp_path: Path) -> None:
    with cluster.node(cpus=1):
        nodes = surveyed(cluster, tmp_path, 90)
        assert sorted(node["cpus"] for node in nodes) == [1, 6]
        for node in nodes:
            assert node["silent"] == node["unwritable"] == node["torch"] == ""
            assert node["versions"]["no-such-package"] == ""
            assert node["missed"] == []
        assert list(tmp_path.iterdir()) == []

        nowhere = surveyed(cluster, tmp_path / "nowhere", 90)
        assert [node["unwritable"] for node in nowhere] == [
            f"{tmp_path / 'nowhere'}: No such file or directory"
        ] * 2


def test_a_node_that_hangs_is_named_and_waited_for_no_longer(cluster: Head, tmp_path: Path) -> None:
    with cluster.node(cpus=1) as process:
        os.killpg(process.pid, signal.SIGSTOP)
        hung, well = sorted(surveyed(cluster, tmp_path, 40), key=lambda node: node["cpus"])
    assert hung["silent"]
    assert well["silent"] == ""
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_asks_a_cluster_from_outside(cluster: Head, home: Path) -> None:
    with cluster.node(cpus=1):
        said = run(home, "doctor", "--recipe", "smoke", "--address", cluster.url, "--json")
    assert said.code == 0, said.out
    findings = {finding["name"]: finding for finding in said.json["findings"]}
    assert findings["nodes"]["detail"] == "2 of 2 answered"
    assert "here and on 2 nodes" in findings["versions"]["detail"]
    assert findings["shared storage"]["detail"] == "2 nodes write, and see each other's files"
    assert findings["CPUs"]["detail"].endswith("left for Ray Data")
    assert findings["GPUs"]["ok"]
    assert "0 registered models" in findings["job: tracker and registry"]["detail"]
    assert not list(home.glob(".doctor-*"))


def test_the_doctor_says_once_that_nobody_answers(home: Path, free_port: int) -> None:
    said = run(home, "doctor", "--address", f"http://127.0.0.1:{free_port}", "--json", timeout=60)
    assert said.code == 1
    wrong = [finding for finding in said.json["findings"] if not finding["ok"]]
    assert [finding["name"] for finding in wrong] == ["cluster"]
    assert "no Ray job server answers" in wrong[0]["detail"]


def test_a_job_server_that_hangs_is_not_waited_for(
    cluster: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.dashboard.REQUEST_SECONDS", 3.0)
    os.killpg(cluster.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(JobError, match=r"does not say its versions|no Ray job server"):
            cluster_versions(cluster.url)
    finally:
        os.killpg(cluster.process.pid, signal.SIGCONT)
