"""The pods of a RayCluster as KubeRay would make them, and as `podman run` takes them.

    pod = head(raycluster, token="secret")
    podman("run", "--detach", *options(pod, network="n", volumes={"home": folder}, image=IMAGE))

Read in KubeRay 1.7.0: `ray start` with its parameters sorted, the limits of a container as what a
node offers, the environment that it adds. What stands in for what: an init container's wait comes
before `ray start` in the same container; a claim and an emptyDir are folders of this machine, an
emptyDir of Memory is /dev/shm; probes are asked by the test.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
OPEN_FILES = 20_000
"""A container may get no more than the machine that runs the test; the operator's is 65,536."""


@dataclass(frozen=True)
class Pod:
    """One pod of a Ray cluster, with the name that it has on the network."""

    name: str
    spec: Document
    command: str
    """What /bin/bash runs in the first container."""
    env: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    publish: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def container(self) -> Document:
        """The one that Ray runs in."""
        first: Document = self.spec["containers"][0]
        return first


def head(cluster: Document, *, token: str, env: Mapping[str, str] | None = None) -> Pod:
    """The head, with the names of its service."""
    group = cluster["spec"]["headGroupSpec"]
    name = cluster["metadata"]["name"]
    service, domain = f"{name}-head-svc", _fqdn(cluster)
    start = "ray start --head" + _parameters(group, {"dashboard-host": "0.0.0.0"})
    more = {"RAY_ADDRESS": "127.0.0.1:6379"} | _redis(cluster) | dict(env or {})
    return Pod(
        f"{name}-head",
        group["template"]["spec"],
        _shell(start),
        _environment(cluster, group, "headgroup", token) | more,
        (service, domain),
        publish=(8265,),
    )


def worker(
    cluster: Document, number: int, *, token: str, env: Mapping[str, str] | None = None
) -> Pod:
    """A worker of the first group; it waits for the head as its init container would."""
    group = cluster["spec"]["workerGroupSpecs"][0]
    kind, fqdn = group["groupName"], _fqdn(cluster)
    address = f"{fqdn}:6379"
    wait = f"until ray health-check --address {address} > /dev/null 2>&1; do sleep 1; done"
    start = "ray start" + _parameters(group, {"address": address})
    more = {"FQ_RAY_IP": fqdn, "RAY_IP": fqdn.partition(".")[0], "RAY_ADDRESS": address}
    return Pod(
        f"{cluster['metadata']['name']}-{kind}-worker-{number}",
        group["template"]["spec"],
        f"{wait}; {_shell(start)}",
        _environment(cluster, group, kind, token) | more | dict(env or {}),
        publish=(8000,),
    )


def options(pod: Pod, *, network: str, volumes: Mapping[str, Path], image: str) -> list[str]:
    """The arguments of `podman run` for a pod: its limits, its user, its rights, its command."""
    return [
        "--name", f"{network}-{pod.name}", "--hostname", pod.name, "--network", network,
        *(f"--network-alias={alias}" for alias in pod.aliases),
        *(f"--publish=127.0.0.1::{port}" for port in pod.publish),
        *_rights(pod), *_limits(pod), *_mounts(pod, volumes),
        *(f"--env={name}={value}" for name, value in pod.env.items()),
        image, "/bin/bash", "-c", "--", pod.command,
    ]  # fmt: skip


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
    return [f"--memory={memory}", f"--memory-swap={memory}", f"--cpus={quantity(limits['cpu'])}"]


def _mounts(pod: Pod, volumes: Mapping[str, Path]) -> list[str]:
    kinds = {volume["name"]: volume for volume in pod.spec["volumes"]}
    words = []
    for mount in pod.container["volumeMounts"]:
        name, path = mount["name"], mount["mountPath"]
        if kinds[name].get("emptyDir", {}).get("medium") == "Memory":
            assert path == "/dev/shm"
            words.append(f"--shm-size={quantity(kinds[name]['emptyDir']['sizeLimit'])}")
        else:
            words.append(f"--volume={volumes[name]}:{path}")
    return words


def _parameters(group: Document, more: Mapping[str, str]) -> str:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    # The operator rounds cores up.
    given = {
        "block": "true",
        "dashboard-agent-listen-port": "52365",
        "memory": str(quantity(limits["memory"])),
        "metrics-export-port": "8080",
        "num-cpus": str(-(-quantity(limits["cpu"]) // 1)),
        **more,
        **group["rayStartParams"],
    }
    flags = [
        f"--{name}" if value == "true" else f"--{name}={shlex.quote(value)}"
        for name, value in sorted(given.items())
        if value != "false"
    ]
    return "".join(f" {flag}" for flag in flags)


def _environment(cluster: Document, group: Document, kind: str, token: str) -> dict[str, str]:
    own = group["template"]["spec"]["containers"][0].get("env", ())
    env = {item["name"]: item["value"] for item in own if "value" in item}
    if cluster["spec"].get("authOptions", {}).get("mode") == "token":
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return env | {
        "RAY_CLUSTER_NAME": cluster["metadata"]["name"],
        "RAY_CLUSTER_NAMESPACE": _namespace(cluster),
        "RAY_NODE_TYPE_NAME": kind,
        "RAY_PORT": "6379",
        "RAY_START_ULIMIT_OPEN_FILES": str(OPEN_FILES),
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # workers wait for a head that restarts
    }


def _redis(cluster: Document) -> dict[str, str]:
    """Where a head keeps its state; the password is a secret's, and so the caller's."""
    given = cluster["spec"].get("gcsFaultToleranceOptions")
    if not given:
        return {}
    namespace = {"RAY_external_storage_namespace": cluster["metadata"]["name"]}
    return namespace | {"RAY_REDIS_ADDRESS": given["redisAddress"]}


def _shell(start: str) -> str:
    return f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"


def _namespace(cluster: Document) -> str:
    return str(cluster["metadata"].get("namespace", "default"))


def _fqdn(cluster: Document) -> str:
    return f"{cluster['metadata']['name']}-head-svc.{_namespace(cluster)}.svc.cluster.local"


def quantity(text: str | int | float) -> int:
    """Bytes or whole cores, from a quantity of Kubernetes such as 4Gi or 2; 500m counts as 1."""
    words = str(text)
    if words.endswith("m"):
        return -(-int(words[:-1]) // 1000)
    for unit, factor in UNITS.items():
        if words.endswith(unit):
            return int(words.removesuffix(unit)) * factor
    return int(words)
