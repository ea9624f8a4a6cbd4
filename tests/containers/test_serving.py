"""The RayService of `k8s/`: its application put there as KubeRay does, real mail, a lost head."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from cluster.manifests import render
from serving.client import MailrayClient
from tests.containers import engine
from tests.containers.conftest import DEV
from tests.containers.namespace import Namespace
from tests.containers.nodes import RayCluster, one
from tests.containers.service import Callers, RayService

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(bool(engine.missing()), reason=engine.missing()),
]
Note = Callable[[str, object], None]
MAILS = 60


@pytest.fixture(scope="module")
def verdicts(cluster: RayCluster, champion: str) -> dict[str, str]:
    """What a job on the other cluster says of each test mail, by the mail's file."""
    said = cluster.submit("evaluate", "--model", champion, "--predictions", "/mailray/test.parquet")
    assert said.code == 0, said.err
    table = pyarrow.parquet.read_table(cluster.home / "test.parquet")
    return dict(zip(table["id"].to_pylist(), table["predicted"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def service(namespace: Namespace, champion: str) -> Iterator[RayService]:
    """The service on its own cluster, with the model that a job has registered."""
    manifest = one(render(DEV / "serving"), "RayService")
    with RayService(namespace, manifest) as started:
        [application] = started.config["applications"]
        assert application["args"]["model"] == f"{champion}@champion"
        started.deploy()
        yield started


def test_real_mail_is_classified_from_outside(
    service: RayService, verdicts: dict[str, str], corpus: Path, record_property: Note
) -> None:
    assert {container for container, _ in service.replicas()} == set(service.workers)
    ids = sorted(verdicts)[:: max(1, len(verdicts) // MAILS)]
    wanted = {id_: verdicts[id_] for id_ in ids}
    assert set(wanted.values()) == {"ham", "spam"}
    for url in service.urls():
        with MailrayClient(url) as client:
            answers = {id_: client.classify((corpus / id_).read_bytes()) for id_ in ids}
        assert {id_: answer.label for id_, answer in answers.items()} == wanted
    right = sum(("spam" in id_.partition("/")[0]) == (wanted[id_] == "spam") for id_ in ids)
    record_property(
        "found",
        f"{len(ids)} test mails through each worker's proxy, labels as a job gives them, "
        f"{right} of them right",
    )


def test_a_head_that_is_lost_is_not_missed(
    service: RayService, corpus: Path, record_property: Note
) -> None:
    raw = next((corpus / "spam-2").iterdir()).read_bytes()
    before = service.replicas()
    with Callers(service.urls(), raw) as callers:
        time.sleep(3)
        lost = time.monotonic()
        service.add_head()
        service.wait_for_nodes(1 + len(service.workers))
        service.wait_for_application()
        back = time.monotonic()
        time.sleep(10)
    assert callers.failures == []
    assert service.replicas() == before, "the same processes"
    waits = callers.between(lost, back)
    assert len(waits) > 50
    record_property(
        "found",
        f"{len(callers.answered)} requests, none failed; {len(waits)} in the {back - lost:.0f} s "
        f"without a head, the slowest {max(waits):.2f} s",
    )


def test_the_new_head_takes_jobs(service: RayService) -> None:
    said = service.submit("train", "--recipe", "smoke", "--name", "after-the-head")
    assert said.code == 0, said.err
