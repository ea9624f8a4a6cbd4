"""`mailray doctor --kubernetes` against a stand-in API server, one thing missing at a time."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster import preflight
from cluster.doctor import examine
from cluster.manifests import ManifestError, renderer
from cluster.rayjobs import connect
from tests.cluster.kubernetes import Server, serving

K8S = Path(__file__).parents[2] / "k8s"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A namespace with all that a job needs."""
    try:
        renderer()
    except ManifestError as error:
        pytest.skip(str(error))
    with serving() as made:
        (tmp_path / "kubeconfig").write_text(made.kubeconfig())
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
            str(tmp_path / "kubeconfig"),
        )
        for name, key in (
            ("mailray-postgres", "password"),
            ("mailray-redis", "password"),
            ("mailray-ray-token", "auth_token"),
        ):
            made.add("secrets", name, data={key: "eA=="})
        claim = {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}
        made.add("persistentvolumeclaims", "mailray-home", **claim)
        made.add("nodes", "one", status={"allocatable": {"cpu": "7910m", "memory": "32Gi"}})
        made.add("deployments", "kuberay-operator", **_operator("v1.7.0"))
        yield made


def _operator(tag: str) -> dict[str, object]:
    container = {"name": "operator", "image": f"quay.io/kuberay/operator:{tag}"}
    template = {"spec": {"containers": [container]}}
    return {"spec": {"selector": {"matchLabels": {}}, "template": template}}


def _found() -> dict[str, tuple[bool | None, str, str]]:
    findings = examine(preflight.checks(connect(), K8S, K8S / "overlays" / "dev"))
    return {f.name: (f.ok, f.detail, f.remedy) for f in findings}


def test_a_namespace_that_has_all_is_found_well(server: Server) -> None:
    found = _found()
    assert {name: detail for name, (ok, detail, _) in found.items() if ok is not True} == {}
    assert found["Kubernetes"][1] == "v1.34.0, namespace mail"
    assert found["KubeRay"][1] == "operator 1.7.0"
    assert found["manifests"][1] == f"Ray {version('ray')}, mailray {version('mailray')}"
    assert found["room"][1] == "5 cpu asked for, 7.91 cpu on 1 nodes"


def _drop(*key: str) -> Callable[[Server], object]:
    return lambda server: server.objects.pop((key[0], key[1]))


def _replace(plural: str, name: str, **parts: object) -> Callable[[Server], object]:
    return lambda server: server.objects[plural, name].update(parts)


def _deny(resource: str) -> Callable[[Server], object]:
    return lambda server: server.denied.add(resource)


@pytest.mark.parametrize(
    ("change", "name", "ok", "said"),
    [
        (_drop("secrets", "mailray-redis"), "secrets", False, "mailray-redis is missing"),
        (
            _replace("secrets", "mailray-ray-token", data={"other": "eA=="}),
            "secrets", False, "mailray-ray-token lacks auth_token",
        ),
        (_deny("secrets"), "secrets", None, "you may not look at mailray-postgres"),
        (_drop("persistentvolumeclaims", "mailray-home"), "storage", False, "not found"),
        (
            _replace("persistentvolumeclaims", "mailray-home", status={"phase": "Pending"}),
            "storage", None, "is Pending",
        ),
        (
            _replace("persistentvolumeclaims", "mailray-home", status={"phase": "Lost"}),
            "storage", False, "has lost its volume",
        ),
        (
            _replace("nodes", "one", status={"allocatable": {"cpu": "2"}}),
            "room", False, "5 cpu asked for, 2 cpu on 1 nodes: the job would wait for ever",
        ),
        (_deny("nodes"), "room", None, "5 cpu are asked for; Kubernetes does not list the nodes"),
        (_deny("rayjobs"), "rights", False, "you may not create rayjobs, get rayjobs, delete"),
        (_deny("pods"), "rights", False, "you may not create pods/portforward in mail"),
        (_drop("deployments", "kuberay-operator"), "KubeRay", False, "but no operator runs"),
        (
            _replace("deployments", "kuberay-operator", **_operator("v1.3.2")),
            "KubeRay", None, "operator 1.3.2; the manifests are for 1.7 and later",
        ),
        (_deny("deployments"), "KubeRay", None, "deployments is forbidden"),
        (
            lambda server: server.kinds.update({"ray.io/v1": {"rayjobs": "RayJob"}}),
            "KubeRay", False, "RayCluster, RayService not installed",
        ),
        (lambda server: server.kinds.pop("ray.io/v1"), "KubeRay", False, "is KubeRay installed?"),
    ],
)  # fmt: skip
def test_what_is_missing_is_found_and_has_a_remedy(
    server: Server, change: Callable[[Server], object], name: str, ok: bool | None, said: str
) -> None:
    change(server)
    found = _found()
    assert found[name][0] is ok, found
    assert said in found[name][1]
    assert found[name][2]
    assert all(each[0] for other, each in found.items() if other != name)


def test_an_image_of_another_version_is_a_fault(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "version", {"ray": "2.61.0", "mailray": "9.9.9"}.get)
    ok, detail, _ = _found()["manifests"]
    assert ok is False
    assert "2.61.0" in detail
