"""A Ray cluster of containers on a network of their own, from the manifests in `k8s/`.

    with RayCluster(folder, image=IMAGE) as cluster:
        said = cluster.submit("train", "--recipe", "smoke")

Jobs come from outside, by `mailray submit` to a port of this machine's loopback, as through
`kubectl port-forward`. A worker that is lost gets a successor of another name, as from KubeRay.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from cluster.manifests import render
from tests.containers.engine import ROOT, EngineError, podman
from tests.containers.pods import Pod, head, options, worker
from tests.end_to_end.terminal import COMMAND, Said

OVERLAY = ROOT / "k8s/overlays/dev/cluster"
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
    """A head, workers, and the folder that they share as the claim `mailray-home`."""

    def __init__(
        self,
        folder: Path,
        *,
        image: str,
        manifest: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.image, self.env = folder, image, dict(env or {})
        self.network = f"mailray-{secrets.token_hex(3)}"
        self.token = secrets.token_hex(16)
        self.home = self._folder("home")
        self.manifest = manifest or one(render(OVERLAY), "RayCluster")
        self.beside: list[list[str]] = []
        """What runs on the network before the head: the end of a `podman run` for each."""
        self.workers: list[str] = []
        self.head = ""
        self._started = 0

    def __enter__(self) -> Self:
        podman("network", "create", self.network)
        try:
            for words in self.beside:
                podman("run", "--detach", "--network", self.network, *words)
            self.add_head()
            for _ in range(self.manifest["spec"]["workerGroupSpecs"][0]["replicas"]):
                self.add_worker()
            self.wait_for_nodes(1 + len(self.workers))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        names = podman("ps", "-aq", "--filter", f"network={self.network}").split()
        with suppress(EngineError):
            if names:
                podman("rm", "--force", "--time", "0", "--volumes", *names)
            podman("network", "rm", "--force", self.network)

    def add_head(self) -> None:
        """Start a head, or one in the place of another, which has all its names."""
        if self.head:
            podman("rm", "--force", "--time", "0", self.head)
        self.head = self._run(head(self.manifest, token=self.token, env=self.env))

    def add_worker(self) -> str:
        """Start one more worker; its container."""
        self._started += 1
        pod = worker(self.manifest, self._started, token=self.token, env=self.env)
        self.workers.append(self._run(pod))
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

    def submitted(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        """`mailray submit` under way; the job keeps its things in `home`, in SQLite."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MAILRAY_"))}
        outside = {
            "HOME": str(self.folder / "outside"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "MLFLOW_TRACKING_URI": "",
        }
        return subprocess.Popen(
            [*COMMAND, "submit", "--address", self.url(self.head, 8265), "--", *words],
            cwd=ROOT, env=kept | outside | env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def submit(self, *words: str, **env: str) -> Said:
        """`mailray submit`, to its end."""
        process = self.submitted(*words, **env)
        out, err = process.communicate(timeout=400)
        return Said(process.returncode, out, err)

    def facts(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        found: dict[str, Any] = json.loads(podman("inspect", container))[0]
        return found

    def _run(self, pod: Pod) -> str:
        kinds = {volume["name"] for volume in pod.spec["volumes"]}
        volumes = {name: self._folder(f"{pod.name}-{name}") for name in kinds - {"home", "shm"}}
        volumes["home"] = self.home
        words = options(pod, network=self.network, volumes=volumes, image=self.image)
        return podman("run", "--detach", *words)

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 1000, 1000)  # fsGroup
        return path
