"""The pods of a RayCluster as KubeRay would make them.

    pod = head(raycluster, namespace.secrets)

Read in KubeRay 1.7.0: `ray start` with its parameters sorted, the limits of a container as what a
node offers, the environment that it adds. An init container's wait comes before `ray start` in the
same container.
"""

from collections.abc import Mapping

from tests.containers.pods import Document, Pod, Secrets, environment, quantity, value_of

OPEN_FILES = 20_000
"""A container may get no more than the machine that runs the test; the operator's is 65,536."""


def head(cluster: Document, secrets: Secrets) -> Pod:
    """The head, with the names of its service."""
    group = cluster["spec"]["headGroupSpec"]
    name = cluster["metadata"]["name"]
    state = _state(cluster, secrets)
    password = {"redis-password": "$REDIS_PASSWORD"} if "REDIS_PASSWORD" in state else {}
    start = "ray start --head" + _parameters(group, {"dashboard-host": "0.0.0.0", **password})
    env = _environment(cluster, group, "headgroup", secrets)
    return _pod(
        f"{name}-head",
        group,
        start=_shell(start),
        env=env | {"RAY_ADDRESS": "127.0.0.1:6379"} | state,
        aliases=(f"{name}-head-svc", _fqdn(cluster)),
        publish=(8265,),
    )


def worker(cluster: Document, number: int, secrets: Secrets) -> Pod:
    """A worker of the first group; it waits for the head as its init container would."""
    group = cluster["spec"]["workerGroupSpecs"][0]
    kind, fqdn = group["groupName"], _fqdn(cluster)
    address = f"{fqdn}:6379"
    wait = f"until ray health-check --address {address} > /dev/null 2>&1; do sleep 1; done"
    start = "ray start" + _parameters(group, {"address": address})
    more = {"FQ_RAY_IP": fqdn, "RAY_IP": fqdn.partition(".")[0], "RAY_ADDRESS": address}
    if cluster["spec"].get("gcsFaultToleranceOptions"):  # they wait for a head that restarts
        more["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
    return _pod(
        f"{cluster['metadata']['name']}-{kind}-worker-{number}",
        group,
        start=f"{wait}; {_shell(start)}",
        env=_environment(cluster, group, kind, secrets) | more,
        publish=(8000,),
    )


def _pod(
    name: str,
    group: Document,
    *,
    start: str,
    env: Mapping[str, str],
    publish: tuple[int, ...],
    aliases: tuple[str, ...] = (),
) -> Pod:
    spec = group["template"]["spec"]
    command = ("/bin/bash", "-c", "--")
    return Pod(name, spec, spec["containers"][0], env, command, (start,), aliases, publish)


def _parameters(group: Document, more: Mapping[str, str]) -> str:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    # The operator rounds cores up.
    given = {
        "block": "true",
        "dashboard-agent-listen-port": "52365",
        "memory": str(quantity(limits["memory"])),
        "metrics-export-port": "8080",
        "num-cpus": str(quantity(limits["cpu"])),
        **more,
        **group["rayStartParams"],
    }
    flags = [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in sorted(given.items())
        if value != "false"
    ]
    return "".join(f" {flag}" for flag in flags)


def _environment(cluster: Document, group: Document, kind: str, secrets: Secrets) -> dict[str, str]:
    env = environment(group["template"]["spec"]["containers"][0], secrets)
    authentication = cluster["spec"].get("authOptions", {})
    if authentication.get("mode") == "token":
        token = secrets[authentication["secretName"]]["auth_token"]
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return env | {
        "RAY_CLUSTER_NAME": cluster["metadata"]["name"],
        "RAY_CLUSTER_NAMESPACE": _namespace(cluster),
        "RAY_NODE_TYPE_NAME": kind,
        "RAY_PORT": "6379",
        "RAY_START_ULIMIT_OPEN_FILES": str(OPEN_FILES),
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
    }


def _state(cluster: Document, secrets: Secrets) -> dict[str, str]:
    """Where a head keeps its state, beside itself."""
    given = cluster["spec"].get("gcsFaultToleranceOptions")
    if not given:
        return {}
    return {
        "RAY_external_storage_namespace": cluster["metadata"]["name"],  # the operator: its uid
        "RAY_REDIS_ADDRESS": given["redisAddress"],
        "REDIS_PASSWORD": value_of(given["redisPassword"], secrets),
    }


def _shell(start: str) -> str:
    return f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"


def _namespace(cluster: Document) -> str:
    return str(cluster["metadata"].get("namespace", "default"))


def _fqdn(cluster: Document) -> str:
    return f"{cluster['metadata']['name']}-head-svc.{_namespace(cluster)}.svc.cluster.local"
