"""A Ray cluster of containers on a network of their own, from the manifests in `k8s/`.

    with RayCluster(folder, image=IMAGE) as cluster:
        said = cluster.submit("train", "--recipe", "smoke")

Jobs come from outside, by `mailray submit` to a port of this machine's loopback, as through
`kubectl port-forward`. A worker that is lost gets a successor of another name, as from KubeRay.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
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


class RayCluster:
    """A head, workers, and the folder that they share as the claim `mailray-home`."""

    def __init__(self, folder: Path, *, image: str) -> None:
        self.folder, self.image = folder, image
        self.network = f"mailray-{secrets.token_hex(3)}"
        self.token = secrets.token_hex(16)
        self.home = self._folder("home")
        [self.manifest] = [d for d in render(OVERLAY) if d["kind"] == "RayCluster"]
        self.workers: list[str] = []
        self.head = ""
        self._started = 0

    def __enter__(self) -> Self:
        podman("network", "create", self.network)
        try:
            self.head = self._run(head(self.manifest, token=self.token))
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

    def add_worker(self) -> str:
        """Start one more worker; its container."""
        self._started += 1
        self.workers.append(self._run(worker(self.manifest, self._started, token=self.token)))
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

    @property
    def url(self) -> str:
        """Of its dashboard, from outside."""
        return f"http://{podman('port', self.head, '8265').splitlines()[0]}"

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
            [*COMMAND, "submit", "--address", self.url, "--", *words],
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
        import json

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
        path.mkdir()
        os.chown(path, 1000, 1000)  # fsGroup
        return path


assert sys.platform == "linux"
