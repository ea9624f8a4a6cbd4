"""Each manifest, broken in one place, is refused, and the fault names the place."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from cluster.kuberay import LONGEST_NAME, SPEC_PATH, Document
from cluster.manifests import Setting, check

Render = Callable[[str], list[Document]]

LEAVES = ("training", "study", "serving", "cluster")
WRONG_TYPE: dict[str, tuple[str, Any]] = {
    "ConfigMap": ("data", ["text"]),
    "ServiceAccount": ("automountServiceAccountToken", "no"),
    "Role": ("rules", "all"),
}
"""A key and a value for kinds that have no spec."""

HEAD = "headGroupSpec.template.spec"
WORKER = "workerGroupSpecs.0.template.spec"
GONE = object()


def _broken(document: Document, path: str, value: Any) -> Document:
    """A copy with the value at a dotted path, or without what is there."""
    copy = deepcopy(document)
    *way, last = path.split(".")
    place: Any = copy
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    key: Any = int(last) if isinstance(place, list) else last
    if value is GONE:
        del place[key]
    else:
        place[key] = value
    return copy


def _faults(
    documents: list[Document], broken: Document, setting: Setting, beside: list[Document]
) -> list[str]:
    """Of the documents with one of them in its broken form."""
    index = next(
        i for i, document in enumerate(documents)
        if document["kind"] == broken["kind"]
        and (document["metadata"]["name"] == broken["metadata"]["name"]
             or document["kind"] in SPEC_PATH)
    )  # fmt: skip
    mixed = [*documents[:index], broken, *documents[index + 1 :]]
    return [str(fault) for fault in check(mixed, setting, beside=beside)]


def _short(value: object) -> str:
    """The same in every process, as pytest-xdist wants it."""
    return "gone" if value is GONE else str(value)


@pytest.mark.parametrize("folder", ["gpu-autoscaling", *(f"dev/{leaf}" for leaf in LEAVES)])
def test_a_wrong_field_type_or_name_is_refused_in_every_document(
    folder: str, rendered: Render, setting: Setting
) -> None:
    for document in rendered(folder):
        if document["kind"] in ("PodMonitor", "ScrapeConfig", "PrometheusRule"):
            continue  # see test_platform.py
        key, wrong = WRONG_TYPE.get(document["kind"], ("spec", "text"))
        field = deepcopy(document)
        field.get("spec", field)["nonsense"] = 1
        broken = {"field": field, "type": {**document, key: wrong}}
        for name in ("Not_A_Name", "a" * 64, ""):
            broken[f"name {name!r}"] = _broken(document, "metadata.name", name)
        for what, copy in broken.items():
            # In its form alone: with nothing else there, a closer look would find more.
            faults = [str(fault) for fault in check([copy], setting)]
            expected = {"field": "nonsense", "type": "type"}.get(what, "metadata.name")
            assert any(expected in fault for fault in faults), (document["kind"], what, faults)


RAY = [
    ("rayVersion", "2.59.0", "rayVersion: the image has"),
    ("rayVersion", 2.6, "is not of type 'string'"),
    ("headGroupSpec.rayStartParams", {}, "num-cpus must be '0'"),
    ("headGroupSpec.rayStartParams.num-cpus", 0, "is not of type 'string'"),
    (f"{HEAD}.containers.0.resources.requests.cpu", "500m", "requests must equal limits"),
    (f"{HEAD}.containers.0.ports.0", GONE, "ports [6379] are not listed"),
    (f"{HEAD}.containers.0.image", "mailray:0.0.9", "got 0.0.9"),
    (f"{HEAD}.containers.0.image", "mailray", "needs a tag"),
    (f"{WORKER}.containers.0.image", "mailray:latest", "needs a tag"),
    (f"{WORKER}.containers.0.securityContext.capabilities.drop", ["NET_RAW"], "capabilities"),
    (f"{WORKER}.containers.0.securityContext.readOnlyRootFilesystem", GONE, "readOnlyRoot"),
    (f"{WORKER}.containers.0.securityContext.allowPrivilegeEscalation", True, "Escalation"),
    (f"{WORKER}.containers.0.volumeMounts.0.name", "nowhere", "no volume nowhere"),
    (f"{WORKER}.containers.0.resources.limits.memory", GONE, "limits.memory"),
    (f"{WORKER}.containers.0.env.2.value", "http://mailray-mlflow:5001", "no service"),
    (f"{WORKER}.securityContext.runAsUser", 0, "runAsUser above 0"),
    (f"{WORKER}.securityContext.seccompProfile.type", "Unconfined", "RuntimeDefault"),
    (f"{WORKER}.automountServiceAccountToken", True, "automountServiceAccountToken"),
    (f"{WORKER}.serviceAccountName", "nobody", "no service account nobody"),
    (f"{WORKER}.volumes.0.persistentVolumeClaim.claimName", "other", "no claim other"),
    (f"{WORKER}.hostNetwork", True, "hostNetwork"),
    (f"{WORKER}.containers", [], "no container"),
    ("workerGroupSpecs.0.template.metadata.labels", {}, "no network policy for Egress"),
    ("workerGroupSpecs.0.groupName", "head", "two groups"),
    ("workerGroupSpecs.0.minReplicas", 3, "minReplicas <= replicas"),
    ("authOptions.secretName", "other", "nobody makes the secret other"),
    ("authOptions.mode", "password", "'password' is not one of"),
    ("authOptions.tokens", 1, "'tokens' was unexpected"),
    ("enableInTreeAutoscaling", True, "must be v2"),
    ("managedBy", "somebody", "managedBy field value must be"),
    ("headGroupSpec.resources", {"CPU": "0"}, "resources both"),
]  # fmt: skip


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize(("path", "value", "expected"), RAY, ids=lambda value: _short(value)[:40])
def test_a_broken_cluster_is_refused_in_each_ray_kind(
    leaf: str, path: str, value: Any, expected: str, rendered: Render, setting: Setting
) -> None:
    documents = rendered(f"dev/{leaf}")
    (ray,) = [d for d in documents if d["kind"] in SPEC_PATH]
    broken = _broken(ray, ".".join((*SPEC_PATH[ray["kind"]], path)), value)
    faults = _faults(documents, broken, setting, rendered("dev"))
    assert any(expected in fault for fault in faults), faults


ELSE = [
    ("dev/training", "RayJob", "spec.submissionMode", "Http", "submissionMode: one of"),
    ("dev/training", "RayJob", "spec.shutdownAfterJobFinishes", False, "needs shutdownAfter"),
    ("dev/training", "RayJob", "spec.backoffLimit", -1, "must not be negative"),
    ("dev/training", "RayJob", "spec.activeDeadlineSeconds", 0, "must be positive"),
    ("dev/training", "RayJob", "spec.runtimeEnvYAML", "a: [", "not YAML"),
    ("dev/training", "RayJob", "spec.rayClusterSpec", GONE, "either rayClusterSpec or"),
    ("dev/training", "RayJob", "spec.clusterSelector", {"a": "b"}, "either rayClusterSpec or"),
    ("dev/study", "RayJob", "spec.deletionStrategy", {}, "requires either BOTH"),
    (
        "dev/study", "RayJob", "spec.deletionStrategy",
        {"deletionRules": [{"policy": "DeleteCluster", "condition": {"ttlSeconds": 1}}]},
        "requires either the JobStatus",
    ),
    ("dev/serving", "PodDisruptionBudget", "spec.selector.matchLabels", {"a": "b"}, "no pod with"),
    ("dev/serving", "RayService", "spec.upgradeStrategy.type", "Rolling", "type: one of"),
    ("dev/serving", "RayService", "spec.upgradeStrategy.type",
     "NewClusterWithIncrementalUpgrade", "needs autoscaling"),
    ("dev/serving", "RayService", "spec.rayClusterConfig.gcsFaultToleranceOptions.redisAddress",
     "redis:6379", "no service redis"),
    ("dev/serving", "RayService",
     "spec.rayClusterConfig.gcsFaultToleranceOptions.redisPassword.valueFrom.secretKeyRef.key",
     "secret", "has no key secret"),
    ("dev/serving", "RayService", "spec.rayClusterConfig.gcsFaultToleranceOptions.backend",
     "etcd", "is not one of"),
    ("gpu-autoscaling/cluster", "RayCluster", "spec.autoscalerOptions.version", "v1", "be v2"),
    ("gpu-autoscaling/cluster", "RayCluster", "spec.autoscalerOptions.securityContext", {},
     "autoscaler: securityContext"),
    ("gpu-autoscaling/cluster", "RayCluster",
     "spec.headGroupSpec.template.spec.automountServiceAccountToken", False, "must be true"),
    ("gpu-autoscaling/cluster", "RayCluster",
     "spec.workerGroupSpecs.0.template.spec.restartPolicy", "Always", "must be Never"),
    ("dev", "Deployment", "spec.template.spec.containers.0.env.3.value",
     "postgresql://mlflow@database:5432/mlflow", "no service database"),
    ("dev", "Deployment", "spec.template.spec.containers.0.env.4.valueFrom.secretKeyRef.name",
     "postgres", "nobody makes the secret postgres"),
    ("dev", "Deployment", "spec.template.metadata.labels", {"a": "b"}, "no network policy"),
    ("dev", "Service", "spec.selector", {"a": "b"}, "no pod with"),
    ("dev", "StatefulSet", "spec.serviceName", "other", "no service other"),
    ("dev", "NetworkPolicy", "spec.ingress", [{"ports": [{"port": True}]}], "spec.ingress"),
    ("dev", "PersistentVolumeClaim", "spec.accessModes", "ReadWriteMany", "spec.accessModes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "kind", "path", "value", "expected"), ELSE, ids=lambda value: _short(value)[-40:]
)
def test_what_is_wrong_in_one_kind_is_refused(
    folder: str,
    kind: str,
    path: str,
    value: Any,
    expected: str,
    rendered: Render,
    setting: Setting,
) -> None:
    documents = rendered(folder)
    document = next(d for d in documents if d["kind"] == kind)
    beside = rendered(folder.partition("/")[0]) if "/" in folder else []
    faults = _faults(documents, _broken(document, path, value), setting, beside)
    assert any(expected in fault for fault in faults), faults


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_name_too_long_for_the_operator_is_refused(
    leaf: str, rendered: Render, setting: Setting
) -> None:
    documents = rendered(f"dev/{leaf}")
    (ray,) = [d for d in documents if d["kind"] in SPEC_PATH]
    longest = LONGEST_NAME[ray["kind"]]
    for name, refused in (("a" * longest, False), ("a" * (longest + 1), True), ("1a", True)):
        broken = _broken(ray, "metadata.name", name)
        faults = _faults(documents, broken, setting, rendered("dev"))
        assert any("metadata.name" in fault for fault in faults) == refused, name


@pytest.mark.parametrize(
    ("secret", "folder"),
    [
        ("mailray-postgres", "dev"),
        ("mailray-redis", "dev"),
        ("mailray-redis", "dev/serving"),
        *(("mailray-ray-token", f"dev/{leaf}") for leaf in LEAVES),
    ],
)
def test_a_secret_that_nobody_makes_is_missed(
    secret: str, folder: str, rendered: Render, setting: Setting
) -> None:
    less = {name: keys for name, keys in setting.secrets.items() if name != secret}
    beside = rendered("dev") if "/" in folder else []
    faults = check(rendered(folder), replace(setting, secrets=less), beside=beside)
    assert any(secret in fault.what for fault in faults)


@pytest.mark.parametrize("leaf", LEAVES)
def test_another_version_of_ray_or_of_mailray_is_refused(
    leaf: str, rendered: Render, setting: Setting
) -> None:
    for other in (replace(setting, ray="2.61.0"), replace(setting, version="9.9.9")):
        faults = check(rendered(f"dev/{leaf}"), other, beside=rendered("dev"))
        assert any("2.61.0" in fault.what or "9.9.9" in fault.what for fault in faults)


def test_without_its_platform_nothing_is_whole(rendered: Render, setting: Setting) -> None:
    faults = [fault.what for fault in check(rendered("dev/serving"), setting)]
    for missing in ("no claim mailray-home", "no service account mailray",
                    "no service mailray-mlflow", "no service mailray-redis",
                    "no network policy for Ingress"):  # fmt: skip
        assert any(missing in fault for fault in faults), missing


def test_the_same_name_twice_is_refused(rendered: Render, setting: Setting) -> None:
    twice = [*rendered("dev"), rendered("dev")[0]]
    assert any("two of that kind" in fault.what for fault in check(twice, setting))


def test_another_kind_or_version_is_refused(rendered: Render, setting: Setting) -> None:
    (job,) = [d for d in rendered("dev/training") if d["kind"] == "RayJob"]
    (deployment,) = [d for d in rendered("dev") if d["kind"] == "Deployment"]
    for broken in ({**job, "apiVersion": "ray.io/v1alpha1"}, {**job, "kind": "RayJobs"},
                   {**deployment, "apiVersion": "apps/v1beta1"}):  # fmt: skip
        (fault,) = check([broken], setting)
        assert "no such kind" in fault.what
