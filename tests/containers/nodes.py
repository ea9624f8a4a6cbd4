"""A Ray cluster of containers, from the manifests in `k8s/`.

    with RayCluster(namespace, one(render(OVERLAY), "RayCluster")) as cluster:
        said = cluster.submit("train", "--recipe", "smoke")

Jobs come from outside, by `mailray submit` to a port of this machine's loopback, as through
`kubectl port-forward`. A worker that is lost gets a successor of another name, as from KubeRay.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from tests.containers.engine import ROOT, EngineError, podman
from tests.containers.namespace import Namespace
from tests.containers.raypods import head, worker
from tests.end_to_end.terminal import COMMAND, Said

START_SECONDS = 180


def until(what: str, holds: Callable[[], bool], *, seconds: float, every: float = 0.5) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)


def one(documents: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """The only document of a kind."""
    [found] = [document for document in documents if document["kind"] == kind]
    return found


class RayCluster:
    """A head and workers in a namespace."""

    def __init__(self, namespace: Namespace, manifest: Mapping[str, Any]) -> None:
        self.namespace, self.manifest = namespace, manifest
        self.home = namespace.home
        self.token = namespace.secrets[manifest["spec"]["authOptions"]["secretName"]]["auth_token"]
        self.workers: list[str] = []
        self.head = ""
        self._started = 0

    def __enter__(self) -> Self:
        try:
            self.add_head()
            for _ in range(self.manifest["spec"]["workerGroupSpecs"][0]["replicas"]):
                self.add_worker()
            self.wait_for_nodes(1 + len(self.workers))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(EngineError):
            podman("rm", "--force", "--time", "0", *self.workers, *filter(None, [self.head]))

    def add_head(self) -> None:
        """Start a head, or one in the place of another, which has all its names."""
        if self.head:
            podman("rm", "--force", "--time", "0", self.head)
        self.head = self.namespace.start(head(self.manifest, self.namespace.secrets))

    def add_worker(self) -> str:
        """Start one more worker; its container."""
        self._started += 1
        pod = worker(self.manifest, self._started, self.namespace.secrets)
        self.workers.append(self.namespace.start(pod))
        return self.workers[-1]

    def kill_worker(self, container: str) -> None:
        """SIGKILL for every process of a worker, as when its node is lost."""
        podman("kill", "--signal", "KILL", container)
        self.workers.remove(container)

    def run_in(self, container: str, *words: str) -> str:
        """What a command says inside of a container."""
        return podman("exec", container, *words)

    def wait_for_nodes(self, count: int) -> None:
        """Until so many nodes are alive."""
        code = (
            "import ray; ray.init(logging_level='ERROR', log_to_driver=False);"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )

        def alive() -> bool:
            with suppress(EngineError):
                return int(self.run_in(self.head, "python", "-c", code).split()[-1]) == count
            return False

        until(f"{count} nodes", alive, seconds=START_SECONDS, every=1)

    def url(self, container: str, port: int) -> str:
        """A port of a container, from outside."""
        return f"http://{podman('port', container, str(port)).splitlines()[0]}"

    def submitted(self, *words: str) -> "subprocess.Popen[str]":
        """`mailray submit` under way; where its things go is the cluster's affair."""
        theirs = ("RAY_", "MAILRAY_", "MLFLOW_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
        outside = {
            "HOME": str(self.namespace.folder / "outside"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }
        return subprocess.Popen(
            [*COMMAND, "submit", "--address", self.url(self.head, 8265), "--", *words],
            cwd=ROOT, env=kept | outside, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def submit(self, *words: str) -> Said:
        """`mailray submit`, to its end."""
        process = self.submitted(*words)
        out, err = process.communicate(timeout=400)
        return Said(process.returncode, out, err)

    def facts(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        found: dict[str, Any] = json.loads(podman("inspect", container))[0]
        return found
