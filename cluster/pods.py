"""The pods that manifests lead to: taken out of each kind, and what is wrong with them.

for pod in pods(rayjob):
    faults = pod_faults(pod, documents, secrets=..., version="0.1.0")

The pods inside a Ray kind are shown as the operator would make them, as far as the checks need it:
with its labels, and the autoscaler beside the head.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cluster.kuberay import SPEC_PATH, Document, cluster_spec

IMAGES: Final = ("mailray", "mailray-cuda")
_TEMPLATED: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job")
_CONTAINER: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_HOST: Final = re.compile(r"(?<![\w.*-])([a-z][a-z0-9-]*):(\d{2,5})(?!\d)")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that a document leads to."""

    where: str
    """Empty, or which of the pods of its document."""
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    extra: Mapping[str, Any]
    """What names secrets and services for this pod, but stands outside of it."""

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that only prepare included."""
        return [*self.spec.get("initContainers", ()), *self.spec.get("containers", ())]

    def is_selected(self, labels: Mapping[str, str]) -> bool:
        """Whether a selector's labels are all the pod's."""
        return labels.items() <= self.labels.items()


def pods(document: Document) -> list[Pod]:
    """The pods of a document, in its order."""
    kind, spec = document["kind"], document.get("spec") or {}
    if kind in _TEMPLATED:
        pod = _pod("", spec["template"])
        claims = [{"name": c["metadata"]["name"]} for c in spec.get("volumeClaimTemplates", ())]
        return [replace(pod, spec={**pod.spec, "volumes": [*pod.spec.get("volumes", ()), *claims]})]
    if kind not in SPEC_PATH:
        return []
    found = []
    if "submitterPodTemplate" in spec:
        found.append(_pod("submitter", spec["submitterPodTemplate"]))
    cluster = cluster_spec(document)
    if head := cluster.get("headGroupSpec"):
        outside = {k: cluster.get(k) or {} for k in ("gcsFaultToleranceOptions", "authOptions")}
        pod = replace(_node("head", "head", head), extra=outside)
        if cluster.get("enableInTreeAutoscaling"):
            sidecar = {"name": "autoscaler", **(cluster.get("autoscalerOptions") or {})}
            containers = [*pod.spec.get("containers", ()), sidecar]
            pod = replace(pod, spec={**pod.spec, "containers": containers})
        found.append(pod)
    for group in cluster.get("workerGroupSpecs") or ():
        found.append(_node(group.get("groupName", "worker"), "worker", group))
    return found


def _pod(where: str, template: Mapping[str, Any]) -> Pod:
    labels = (template.get("metadata") or {}).get("labels") or {}
    return Pod(where, labels, template.get("spec") or {}, {})


def _node(where: str, node: str, group: Mapping[str, Any]) -> Pod:
    pod = _pod(where, group.get("template") or {})
    added = {"ray.io/is-ray-node": "yes", "ray.io/node-type": node}
    return replace(pod, labels={**pod.labels, **added})


def pod_faults(
    pod: Pod,
    documents: Sequence[Document],
    *,
    secrets: Mapping[str, frozenset[str]],
    version: str,
) -> Iterator[str]:
    """What is wrong with a pod among `documents`; empty `secrets`, `version`: not looked at."""
    yield from _security_faults(pod)
    yield from _container_faults(pod, version)
    yield from _reference_faults(pod, documents, secrets)
    yield from _policy_faults(pod, documents)


def _security_faults(pod: Pod) -> Iterator[str]:
    context = pod.spec.get("securityContext") or {}
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "securityContext: runAsNonRoot, and a runAsUser above 0"
    if not context.get("fsGroup"):
        yield "securityContext.fsGroup: without it volumes are root's"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "securityContext.seccompProfile: must be RuntimeDefault"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield f"{name}: not allowed"
    scales = any(container.get("name") == "autoscaler" for container in pod.containers)
    if pod.spec.get("automountServiceAccountToken") is not scales:
        yield f"automountServiceAccountToken: must be {str(scales).lower()}"


def _container_faults(pod: Pod, version: str) -> Iterator[str]:
    if not pod.containers:
        yield "no containers"
    volumes = {volume["name"] for volume in pod.spec.get("volumes", ())}
    for container in pod.containers:
        name, own = container.get("name"), container.get("securityContext") or {}
        for key, value in _CONTAINER.items():
            if own.get(key) != value:
                yield f"{name}: securityContext.{key} must be {value}"
        if own.get("privileged") or own.get("runAsUser") == 0:
            yield f"{name}: securityContext: neither privileged nor root"
        resources = container.get("resources") or {}
        if not {"cpu", "memory"} <= (resources.get("requests") or {}).keys():
            yield f"{name}: resources.requests of cpu and memory"
        if "memory" not in (resources.get("limits") or {}):
            yield f"{name}: resources.limits.memory"
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield f"{name}: no volume {mount['name']}"
        if name == "autoscaler" and "image" not in container:
            continue  # the operator takes the head's
        image, _, tag = str(container.get("image", "")).partition("@")[0].rpartition(":")
        if not image or tag == "latest":
            yield f"{name}: image {container.get('image')} needs a tag that stays"
        elif version and image.rpartition("/")[2] in IMAGES and tag != version:
            yield f"{name}: image tag {version} is this version of mailray, got {tag}"


def _reference_faults(
    pod: Pod, documents: Sequence[Document], secrets: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    there = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    account = pod.spec.get("serviceAccountName")
    if account and ("ServiceAccount", account) not in there:
        yield f"no service account {account}"
    if token := pod.extra.get("authOptions", {}).get("secretName"):
        yield from _secret_faults(token, "auth_token", secrets)
    for key, value in _walk([pod.spec, pod.extra]):
        if key == "secretKeyRef":
            yield from _secret_faults(value.get("name"), value.get("key"), secrets)
        elif key in ("secretRef", "imagePullSecrets"):
            for item in value if isinstance(value, list) else [value]:
                yield from _secret_faults(item.get("name"), None, secrets)
        elif key == "secret":
            yield from _secret_faults(value.get("secretName"), None, secrets)
        elif key in ("configMapKeyRef", "configMapRef", "configMap"):
            if ("ConfigMap", value.get("name")) not in there:
                yield f"no config map {value.get('name')}"
        elif key == "persistentVolumeClaim":
            if ("PersistentVolumeClaim", value.get("claimName")) not in there:
                yield f"no claim {value.get('claimName')}"
        elif key in ("value", "redisAddress") and isinstance(value, str):
            for host, port in _HOST.findall(value):
                service = there.get(("Service", host))
                ports = [item["port"] for item in service["spec"]["ports"]] if service else []
                if host != "localhost" and int(port) not in ports:
                    yield f"no service {host} with port {port}"


def _secret_faults(
    name: str | None, key: str | None, secrets: Mapping[str, frozenset[str]]
) -> Iterator[str]:
    if secrets and name not in secrets:
        yield f"nobody makes the secret {name}"
    elif secrets and key is not None and key not in secrets[str(name)]:
        yield f"the secret {name} has no key {key}"


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key in a tree, with its value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield key, part
            yield from _walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part)


def _policy_faults(pod: Pod, documents: Sequence[Document]) -> Iterator[str]:
    governed: set[str] = set()
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            selector = document["spec"]["podSelector"].get("matchLabels", {})
            if pod.is_selected(selector):
                governed |= set(document["spec"].get("policyTypes", ("Ingress",)))
    for direction in sorted({"Ingress", "Egress"} - governed):
        yield f"no network policy for {direction} selects it"
