"""Pods as `podman run` takes them: their user, their rights, their limits, their volumes.

    podman("run", "--detach", *options(pod, network="n", volumes={"home": folder}, image=IMAGE))

What stands in for what: a claim, an emptyDir and a config map are folders of this machine, an
emptyDir of Memory is a tmpfs, and /dev/shm where it is mounted there; a service's name is an alias
on the network; probes are asked by the test.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]
Secrets = Mapping[str, Mapping[str, str]]
"""The values of each secret, by its name."""
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Pod:
    """One container of a pod, with the name that the pod has on the network."""

    name: str
    spec: Document
    container: Document
    env: Mapping[str, str]
    command: tuple[str, ...] = ()
    """In the place of what the image starts, unless it is empty."""
    args: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    publish: tuple[int, ...] = ()
    """Ports that this machine's loopback has as well, under other numbers."""
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What volumes of config maps hold."""


def options(pod: Pod, *, network: str, volumes: Mapping[str, Path], image: str) -> list[str]:
    """The arguments of `podman run` for a pod."""
    return [
        "--name", f"{network}-{pod.name}", "--hostname", pod.name, "--network", network,
        *(f"--network-alias={alias}" for alias in pod.aliases),
        *(f"--publish=127.0.0.1::{port}" for port in pod.publish),
        *_rights(pod), *_limits(pod), *_mounts(pod, volumes),
        *(f"--env={name}={value}" for name, value in pod.env.items()),
        *([f"--entrypoint={json.dumps(pod.command)}"] if pod.command else []), image, *pod.args,
    ]  # fmt: skip


def environment(container: Document, secrets: Secrets) -> dict[str, str]:
    """What the manifest sets, what comes from secrets included."""
    return {item["name"]: value_of(item, secrets) for item in container.get("env", ())}


def value_of(item: Document, secrets: Secrets) -> str:
    """Of what has a `value`, or a `valueFrom` a secret."""
    if "value" in item:
        return str(item["value"])
    of = item["valueFrom"]["secretKeyRef"]
    return secrets[of["name"]][of["key"]]


def _rights(pod: Pod) -> list[str]:
    of_pod, own = pod.spec["securityContext"], pod.container["securityContext"]
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}, "podman's default, too"
    words = [f"--user={of_pod['runAsUser']}:{of_pod['runAsGroup']}"]
    words += [f"--cap-drop={name.lower()}" for name in own["capabilities"]["drop"]]
    if not own["allowPrivilegeEscalation"]:
        words.append("--security-opt=no-new-privileges")
    if own["readOnlyRootFilesystem"]:  # podman would put writable places of its own into it
        words += ["--read-only", "--read-only-tmpfs=false"]
    return words


def _limits(pod: Pod) -> list[str]:
    limits = pod.container["resources"]["limits"]
    # Without --memory-swap the container would have as much of swap again.
    memory = quantity(limits["memory"])
    words = [f"--memory={memory}", f"--memory-swap={memory}"]
    return [*words, f"--cpus={quantity(limits['cpu'])}"] if "cpu" in limits else words


def _mounts(pod: Pod, volumes: Mapping[str, Path]) -> list[str]:
    words = []
    for mount in pod.container.get("volumeMounts", ()):
        name, path = mount["name"], mount["mountPath"]
        if (size := memory_size(pod.spec, name)) and path == "/dev/shm":
            words.append(f"--shm-size={size}")
        elif size:
            words.append(f"--tmpfs={path}:rw,noexec,nosuid,size={size},mode=1777")
        else:
            words.append(f"--volume={volumes[name]}:{path}{':ro' if name in pod.files else ''}")
    return words


def memory_size(spec: Document, volume: str) -> int:
    """Bytes of a volume that lies in memory, 0 of any other."""
    kinds = {each["name"]: each for each in spec.get("volumes", ())}
    kind = kinds.get(volume, {}).get("emptyDir", {})
    return quantity(kind["sizeLimit"]) if kind.get("medium") == "Memory" else 0


def quantity(text: str | int | float) -> int:
    """Bytes or whole cores, from a quantity of Kubernetes such as 4Gi or 2; 500m counts as 1."""
    words = str(text)
    if words.endswith("m"):
        return -(-int(words[:-1]) // 1000)
    for unit, factor in UNITS.items():
        if words.endswith(unit):
            return int(words.removesuffix(unit)) * factor
    return int(words)
