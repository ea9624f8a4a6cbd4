"""A RayService in a namespace of containers, with the operator's part of it; and its callers.

    with RayService(namespace, one(render(folder), "RayService")) as service:
        service.deploy()
        with Callers(service.urls(), raw) as callers:
            ...
        assert callers.failures == []

Read in KubeRay 1.7.0: the operator puts `serveConfigV2` to the dashboard and asks there until the
application runs.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import yaml

from serving.client import ClientError, MailrayClient
from tests.containers.namespace import Namespace
from tests.containers.nodes import RayCluster, until

APPLICATIONS = "/api/serve/applications/"


class RayService(RayCluster):
    """The cluster of a RayService, and the application on it."""

    def __init__(self, namespace: Namespace, manifest: Mapping[str, Any]) -> None:
        self.config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
        metadata = {"name": f"{manifest['metadata']['name']}-x7k2p"}
        super().__init__(
            namespace, {"metadata": metadata, "spec": manifest["spec"]["rayClusterConfig"]}
        )

    def deploy(self) -> None:
        """Put the application there, and wait until it runs."""
        self._ask("PUT", self.config)
        self.wait_for_application()

    def wait_for_application(self, seconds: float = 180) -> None:
        """Until the dashboard says that all applications run, as the operator asks it."""
        until("the application", self.runs, seconds=seconds)

    def runs(self) -> bool:
        """Whether all applications run; a dashboard that is not there says nothing."""
        with suppress(OSError, ValueError):
            found = self._ask("GET")["applications"]
            broken = [each for each in found.values() if each["status"] == "DEPLOY_FAILED"]
            assert not broken, broken[0]["message"]
            return bool(found) and all(each["status"] == "RUNNING" for each in found.values())
        return False

    def urls(self) -> list[str]:
        """Of each worker's proxy: the pods that the service leads to."""
        return [self.url(container, 8000) for container in self.workers]

    def replicas(self) -> set[tuple[str, str]]:
        """The container and the process of each replica."""
        script = "grep -l ServeReplic[a] /proc/[0-9]*/cmdline"  # it does not find itself
        return {
            (container, file.split("/")[2])
            for container in self.workers
            for file in self.run_in(container, "bash", "-c", script).split()
        }

    def _ask(self, method: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url(self.head, 8265) + APPLICATIONS,
            json.dumps(body).encode() if body else None,
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if method == "GET" else text


class Callers:
    """One caller for each URL, who asks again and again as long as the block lasts."""

    def __init__(self, urls: Sequence[str], raw: bytes, *, pause: float = 0.05) -> None:
        self.answered: list[tuple[float, float]] = []
        """When each question was asked, and how many seconds its answer took."""
        self.failures: list[str] = []
        self._raw, self._pause, self._over = raw, pause, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for url in urls]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def between(self, begun: float, ended: float) -> list[float]:
        """How long the answers took that were asked for in a time."""
        return [seconds for asked, seconds in self.answered if begun <= asked < ended]

    def _ask(self, url: str) -> None:
        # No second try: a request that fails is what is looked for.
        with MailrayClient(url, deadline=20, retry=False) as client:
            while not self._over.wait(self._pause):
                asked = time.monotonic()
                try:
                    client.classify(self._raw)
                except ClientError as error:
                    self.failures.append(f"{url}: {error}")
                else:
                    self.answered.append((asked, time.monotonic() - asked))
