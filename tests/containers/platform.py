"""The platform of `k8s/`, in a namespace of containers: Redis, PostgreSQL, MLflow, an S3 server.

    platform = render(folder_of_an_overlay)
    redis = start(namespace, platform, "mailray-redis")

A workload's init containers run first; it counts as started when its readiness probe says so.
"""

import http.client
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.containers.engine import ROOT, EngineError, podman
from tests.containers.namespace import Namespace
from tests.containers.nodes import until
from tests.containers.pods import Document, Pod, environment

READY_SECONDS = 180


def start(namespace: Namespace, documents: Sequence[Document], name: str) -> str:
    """Start the Deployment or StatefulSet of a name, and wait for it; its container."""
    preparing, pod = _pods(namespace, documents, name)
    for each in preparing:
        namespace.run(each)
    container = namespace.start(pod)
    probe = pod.container["readinessProbe"]
    until(f"{name} ready", lambda: _is_ready(container, pod, probe), seconds=READY_SECONDS)
    return container


def overlay(folder: Path, resource: str, *components: str) -> Path:
    """A kustomization of our own in `folder`: a resource of `k8s/` and components beside it."""
    folder.mkdir()
    k8s = os.path.relpath(ROOT / "k8s", folder)
    parts = "".join(f"  - {k8s}/components/{name}\n" for name in components)
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{k8s}/{resource}]\ncomponents:\n{parts}"
    )
    return folder


def address(container: str, port: int) -> str:
    """Where this machine's loopback has a container's port."""
    return podman("port", container, str(port)).splitlines()[0]


def _pods(namespace: Namespace, documents: Sequence[Document], name: str) -> tuple[list[Pod], Pod]:
    """A workload's init containers, and its container."""
    [workload] = [
        document
        for document in documents
        if document["kind"] in ("Deployment", "StatefulSet")
        and document["metadata"]["name"] == name
    ]
    template = workload["spec"]["template"]
    spec = template["spec"]
    [main] = spec["containers"]
    files = {
        volume["name"]: _config_map(documents, volume["configMap"]["name"])
        for volume in spec["volumes"] if "configMap" in volume
    } if "volumes" in spec else {}  # fmt: skip
    pod = Pod(
        name, spec, main, environment(main, namespace.secrets),
        tuple(main.get("command", ())), tuple(main.get("args", ())),
        aliases=tuple(_services(documents, template["metadata"]["labels"])),
        publish=tuple(port["containerPort"] for port in main["ports"]), files=files,
    )  # fmt: skip
    before = [
        replace(
            pod, container=init, env=environment(init, namespace.secrets), aliases=(), publish=(),
            command=tuple(init.get("command", ())), args=tuple(init.get("args", ())),
        )
        for init in spec.get("initContainers", ())
    ]  # fmt: skip
    return before, pod


def _services(documents: Sequence[Document], labels: Mapping[str, str]) -> list[str]:
    """The names of the services that lead to a pod with these labels."""
    found = [document for document in documents if document["kind"] == "Service"]
    return [
        service["metadata"]["name"]
        for service in found
        if service["spec"]["selector"].items() <= labels.items()
    ]


def _config_map(documents: Sequence[Document], name: str) -> Mapping[str, str]:
    [found] = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("ConfigMap", name)]
    data: Mapping[str, str] = found["data"]
    return data


def _is_ready(container: str, pod: Pod, probe: Mapping[str, Any]) -> bool:
    assert podman("inspect", "--format={{.State.Running}}", container) == "true", (
        f"{pod.name} has ended: {podman('logs', container)[-1500:]}"
    )
    if "exec" in probe:
        with suppress(EngineError):
            podman("exec", container, *probe["exec"]["command"])
            return True
        return False
    [action] = (probe[kind] for kind in ("httpGet", "tcpSocket") if kind in probe)
    ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
    host, _, port = address(container, ports[action["port"]]).partition(":")
    with suppress(OSError, http.client.HTTPException, urllib.error.HTTPError):
        if "path" in action:
            urllib.request.urlopen(f"http://{host}:{port}{action['path']}", timeout=5).close()
        else:
            socket.create_connection((host, int(port)), timeout=5).close()
        return True
    return False
