"""What a namespace of Kubernetes gives to pods: a network with names, a claim, secrets.

    with Namespace(folder, images) as namespace:
        namespace.start(workload)

A pod that is made again has its claims, and new empty folders.
"""

import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from cluster.manifests import example_secrets
from tests.containers.engine import ROOT, EngineError, podman
from tests.containers.pods import Document, Pod, memory_size, options

HOME_CLAIM = "mailray-home"


class Namespace:
    """A network of containers, and the folders that are their volumes."""

    def __init__(self, folder: Path, images: Mapping[str, str]) -> None:
        """`images` are this machine's, by the manifests' names without their tags."""
        self.folder, self.images = folder, images
        self.network = f"mailray-{secrets.token_hex(3)}"
        self.secrets = {
            name: {key: secrets.token_hex(16) for key in keys}
            for name, keys in example_secrets(ROOT / "k8s").items()
        }
        self.home = self._claim(HOME_CLAIM, 1000)
        self.containers: dict[str, str] = {}
        """What has been started, by the pods' names."""

    def __enter__(self) -> Self:
        podman("network", "create", self.network)
        return self

    def __exit__(self, *error: object) -> None:
        names = podman("ps", "-aq", "--filter", f"network={self.network}").split()
        with suppress(EngineError):
            if names:
                podman("rm", "--force", "--time", "0", "--volumes", *names)
            podman("network", "rm", "--force", self.network)

    def start(self, pod: Pod) -> str:
        """Start a pod; its container."""
        self.containers[pod.name] = podman("run", "--detach", *self._options(pod))
        return self.containers[pod.name]

    def run(self, pod: Pod) -> None:
        """Run an init container to its end."""
        podman("run", "--rm", *self._options(pod))

    def _options(self, pod: Pod) -> list[str]:
        mounted = [mount["name"] for mount in pod.container.get("volumeMounts", ())]
        volumes = {
            name: self._volume(pod, name) for name in mounted if not memory_size(pod.spec, name)
        }
        image = self.images[pod.container["image"].rpartition(":")[0]]
        return options(pod, network=self.network, volumes=volumes, image=image)

    def _volume(self, pod: Pod, name: str) -> Path:
        kinds = {each["name"]: each for each in pod.spec.get("volumes", ())}
        kind: Document = kinds.get(name, {})
        group = pod.spec["securityContext"]["fsGroup"]
        if "persistentVolumeClaim" in kind:
            return self._claim(kind["persistentVolumeClaim"]["claimName"], group)
        if name not in kinds:  # a claim from a template is the pod's own
            return self._claim(f"{name}-{pod.name}", group)
        fresh = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        for file, text in pod.files.get(name, {}).items():
            (fresh / file).write_text(text, "utf-8")
        return _open(fresh, group, 0o2777)

    def _claim(self, name: str, group: int) -> Path:
        place = self.folder / name
        if not place.exists():
            place.mkdir()
            _open(place, group, 0o2775)
        return place


def _open(place: Path, group: int, mode: int) -> Path:
    """As a volume is to a pod of that fsGroup."""
    os.chown(place, 0, group)
    place.chmod(mode)
    return place
