"""The preflight of a Kubernetes namespace: what would stop a RayJob, each with its remedy.

findings = examine(checks(connect(), Path("k8s"), Path("k8s/overlays/dev")))
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from cluster.doctor import Check, Concern
from cluster.kuberay import Document
from cluster.manifests import Setting, check, example_secrets, render
from cluster.rayjobs import Kube, Refused

RIGHTS: Final = (
    ("create", "ray.io", "rayjobs", ""),
    ("get", "ray.io", "rayjobs", ""),
    ("delete", "ray.io", "rayjobs", ""),
    ("create", "", "pods", "portforward"),
)
"""What `mailray submit` and `mailray jobs` do: verb, group, resource, subresource."""
KINDS: Final = ("RayJob", "RayCluster", "RayService")
KUBERAY: Final = (1, 7)
"""The KubeRay that the manifests were written for."""


def checks(kube: Kube, k8s: Path, overlay: Path) -> list[Check]:
    """The checks of a namespace, for an overlay; `k8s` has the list of secrets."""
    rendered = cache(lambda leaf: render(overlay / leaf))  # each takes kubectl a moment
    return [
        Check("Kubernetes", lambda: _server(kube), "check KUBECONFIG, --context and the network"),
        Check(
            "KubeRay",
            lambda: _kuberay(kube),
            "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0",
        ),
        Check(
            "rights",
            lambda: _rights(kube),
            f"kubectl -n {kube.namespace} create rolebinding mailray-submitter "
            "--role=mailray-submitter --user=YOU",
        ),
        Check(
            "secrets",
            lambda: _secrets(kube, [*rendered(""), *rendered("training")], example_secrets(k8s)),
            "see k8s/secrets.example.yaml",
        ),
        Check("storage", lambda: _claim(kube), f"kubectl apply -k {overlay}"),
        Check(
            "manifests",
            lambda: _manifests(rendered, example_secrets(k8s)),
            "undo the change to the manifests",
        ),
        Check(
            "room", lambda: _room(kube, rendered("training")), "more nodes, or a smaller overlay"
        ),
    ]


def _server(kube: Kube) -> str:
    from kubernetes.client import VersionApi

    with kube.asked("say its version"):
        return f"{VersionApi(kube.api).get_code().git_version}, namespace {kube.namespace}"


def _kuberay(kube: Kube) -> str:
    from kubernetes.client import AppsV1Api

    found = kube.kinds()
    if absent := [kind for kind in KINDS if kind not in found]:
        raise RuntimeError(f"{', '.join(absent)} not installed")
    try:
        with kube.asked("list the operators"):
            operators = AppsV1Api(kube.api).list_deployment_for_all_namespaces(
                label_selector="app.kubernetes.io/name=kuberay-operator"
            )
    except Refused as refused:
        raise Concern(f"the kinds are installed; whose version, {refused}") from None
    tags = [
        container.image.rpartition(":")[2].removeprefix("v")
        for operator in operators.items
        for container in operator.spec.template.spec.containers
        if "operator" in container.image
    ]
    if not tags:
        raise RuntimeError("the kinds are installed, but no operator runs")
    known = [tuple(map(int, tag.split(".")[:2])) for tag in tags if tag[:1].isdigit()]
    if not known or min(known) < KUBERAY:
        raise Concern(f"operator {', '.join(tags)}; the manifests are for 1.7 and later")
    return f"operator {', '.join(tags)}"


def _rights(kube: Kube) -> str:
    from kubernetes import client

    review = client.AuthorizationV1Api(kube.api)
    missing = []
    for verb, group, resource, sub in RIGHTS:
        asked = client.V1ResourceAttributes(
            namespace=kube.namespace, verb=verb, group=group, resource=resource, subresource=sub
        )
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
        with kube.asked("review access"):
            told = review.create_self_subject_access_review(
                client.V1SelfSubjectAccessReview(spec=spec)
            )
        if not told.status.allowed:
            missing.append(f"{verb} {resource}{'/' * bool(sub)}{sub}")
    if missing:
        raise RuntimeError(f"you may not {', '.join(missing)} in {kube.namespace}")
    return f"rayjobs and the way to their logs, in {kube.namespace}"


def _secrets(kube: Kube, documents: list[Document], known: Mapping[str, frozenset[str]]) -> str:
    from kubernetes.client import CoreV1Api

    told = str(documents)
    named = {name: keys for name, keys in known.items() if f"'{name}'" in told}
    faults, hidden = [], []
    for name, keys in sorted(named.items()):
        try:
            with kube.asked(f"show the secret {name}"):
                held = CoreV1Api(kube.api).read_namespaced_secret(name, kube.namespace).data or {}
        except Refused as refused:
            if "not found" in str(refused):
                faults.append(f"{name} is missing")
            else:
                hidden.append(name)
            continue
        faults += [f"{name} lacks {key}" for key in sorted(keys - held.keys())]
    if faults:
        raise RuntimeError("; ".join(faults))
    if hidden:
        raise Concern(f"you may not look at {', '.join(hidden)}")
    return ", ".join(sorted(named))


def _claim(kube: Kube) -> str:
    from kubernetes.client import CoreV1Api

    with kube.asked("show the claim mailray-home"):
        claim = CoreV1Api(kube.api).read_namespaced_persistent_volume_claim(
            "mailray-home", kube.namespace
        )
    if claim.status.phase == "Lost":
        raise RuntimeError("the claim mailray-home has lost its volume")
    if claim.status.phase != "Bound":
        raise Concern(f"the claim mailray-home is {claim.status.phase}: no volume yet")
    return f"mailray-home, {', '.join(claim.spec.access_modes)}"


def _manifests(
    rendered: Callable[[str], list[Document]], secrets: Mapping[str, frozenset[str]]
) -> str:
    setting = Setting(secrets=secrets, ray=version("ray"), version=version("mailray"))
    platform = rendered("")
    faults = check(platform, setting)
    for leaf in ("training", "study", "serving"):
        faults += check(rendered(leaf), setting, beside=platform)
    if faults:
        raise RuntimeError("; ".join(map(str, faults[:5])))
    return f"Ray {setting.ray}, mailray {setting.version}"


def _room(kube: Kube, documents: list[Document]) -> str:
    from kubernetes.client import CoreV1Api

    (job,) = [each for each in documents if each["kind"] == "RayJob"]
    needed = _asked_for(job["spec"]["rayClusterSpec"])
    try:
        with kube.asked("list the nodes"):
            nodes = CoreV1Api(kube.api).list_node().items
    except Refused as refused:
        raise Concern(f"{_told(needed)} are asked for; {refused}") from None
    have = {
        what: sum(_amount(node.status.allocatable.get(what, "0")) for node in nodes)
        for what in needed
    }
    detail = f"{_told(needed)} asked for, {_told(have)} on {len(nodes)} nodes"
    if any(have[what] < amount for what, amount in needed.items()):
        raise RuntimeError(f"{detail}: the job would wait for ever")
    return detail


def _asked_for(spec: dict[str, Any]) -> dict[str, float]:
    """CPUs and GPUs of the head and of the fewest workers."""
    groups = [(1, spec["headGroupSpec"])]
    groups += [(group.get("minReplicas", 0), group) for group in spec["workerGroupSpecs"]]
    total: dict[str, float] = {}
    for count, group in groups:
        for container in group["template"]["spec"]["containers"]:
            for what, amount in container["resources"]["limits"].items():
                if what != "memory":
                    total[what] = total.get(what, 0) + count * _amount(amount)
    return total


def _amount(quantity: object) -> float:
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(str(quantity)))


def _told(amounts: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {what}" for what, amount in amounts.items())
