"""Jobs on Kubernetes: a RayJob made from the manifests, applied, followed and stopped.

    kube = connect(namespace="mail")
    kube.apply(ray_job(render(Path("k8s/overlays/dev/training")), ["train"], "mailray-train-1"))
    outcome = Following(kube, "mailray-train-1", print, print).run()

The RayJob's status is the truth about how it went, for it outlives its Ray cluster; log and exit
code come from the cluster's job server, see following.py.
"""

import base64
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cluster.dashboard import JobError, reason
from cluster.jobs import JobRow
from cluster.kuberay import LONGEST_NAME, Document

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
OURS: Final = "app.kubernetes.io/part-of=mailray"
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ANSWER_SECONDS: Final = 15.0
_PASSING: Final = (408, 429, 500, 502, 503, 504)
"""HTTP's words for not now."""


def ray_job(documents: Sequence[Document], command: Sequence[str], name: str) -> list[Document]:
    """The rendered documents, their RayJob under this name and with this mailray command.

    A retry of the job gets a new cluster; a training run goes on there from its last checkpoint.

    Raises:
        JobError: the name cannot be one, or there is not just one RayJob.
    """
    most = LONGEST_NAME["RayJob"]
    if len(name) > most or not _NAME.fullmatch(name):
        raise JobError(
            f"a job's name is at most {most} of a-z, 0-9 and -, a letter first, got {name!r}"
        )
    made = deepcopy(list(documents))
    jobs = [document for document in made if document.get("kind") == "RayJob"]
    if len(jobs) != 1:
        raise JobError(f"the overlay renders {len(jobs)} RayJobs where one is needed")
    jobs[0]["metadata"]["name"] = name
    jobs[0]["spec"]["entrypoint"] = entrypoint(command, name)
    return made


def entrypoint(command: Sequence[str], name: str) -> str:
    """The shell command of a job: `train` and `tune` go on where an earlier try has begun."""
    words = shlex.join(["mailray", *command])
    if command[:1] not in (["train"], ["tune"]) or "--resume" in command:
        return words
    given = [after for word, after in pairwise(command) if word == "--name"]
    given += [word.partition("=")[2] for word in command if word.startswith("--name=")]
    run = given[0] if given else name
    named = f"{words}{'' if given else f' --name {run}'}"
    place = f'"$MAILRAY_HOME"/runs/{shlex.quote(run)}'
    if command[0] == "train":
        return f"{named} $(test -f {place}/run.json && echo --resume)"
    return f"{named} $(test -f {place}/study.json && echo --resume {shlex.quote(run)})"


def connect(namespace: str | None = None, context: str | None = None) -> "Kube":
    """Kubernetes as the kubeconfig or the pod's service account knows it.

    Raises:
        JobError: there is neither.
    """
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    settings = Configuration()
    try:
        config.load_kube_config(context=context, client_configuration=settings)
        contexts, active = config.list_kube_config_contexts()
        chosen = next((each for each in contexts if each["name"] == context), active)
        own = chosen["context"].get("namespace")
    except config.ConfigException as error:
        if context is not None:
            raise JobError(f"no Kubernetes context {context}: {reason(error)}") from error
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise JobError(
                "no Kubernetes to talk to: there is no kubeconfig, and this is no pod; set "
                "KUBECONFIG, or try `kubectl cluster-info`"
            ) from error
        own = None
    return Kube(ApiClient(settings), namespace or own or "default", context)


@dataclass(frozen=True, slots=True)
class Kube:
    """A namespace of a Kubernetes cluster."""

    api: Any
    namespace: str
    context: str | None = None

    def apply(self, documents: Sequence[Document]) -> None:
        """Create the RayJob, and have all else there as the documents say.

        Raises:
            JobError: the server refuses one, with what it says.
        """
        from kubernetes.dynamic import DynamicClient
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        # By default it keeps what it learns in the system's temporary directory, where anybody can
        # put something else.
        with TemporaryDirectory() as scratch, self.asked("say what it knows"):
            dynamic = DynamicClient(self.api, cache_file=str(Path(scratch, "kinds")))
        for document in sorted(documents, key=lambda each: each["kind"] == "RayJob"):
            kind, name = document["kind"], document["metadata"]["name"]
            with self.asked(f"apply {kind} {name}"):
                try:
                    resource = dynamic.resources.get(api_version=document["apiVersion"], kind=kind)
                except ResourceNotFoundError as error:
                    raise JobError(
                        f"this Kubernetes knows no {kind}: install KubeRay "
                        "(`helm install kuberay-operator kuberay/kuberay-operator`)"
                    ) from error
                if kind == "RayJob":
                    resource.create(body=document, namespace=self.namespace)
                else:
                    resource.server_side_apply(
                        body=document, name=name, namespace=self.namespace, field_manager="mailray"
                    )

    def job(self, name: str) -> Document:
        """The RayJob as it stands.

        Raises:
            JobError: there is none, or Kubernetes does not say.
        """
        with self.asked(f"show the RayJob {name}"):
            found: Document = self._objects().get_namespaced_custom_object(
                *self._kind(), name, _request_timeout=_ANSWER_SECONDS
            )
        return found

    def jobs(self) -> list[Document]:
        """All RayJobs of mailray in the namespace, the newest first."""
        with self.asked("list the RayJobs"):
            found = self._objects().list_namespaced_custom_object(
                *self._kind(), label_selector=OURS, _request_timeout=_ANSWER_SECONDS
            )
        items: list[Document] = found["items"]
        return sorted(items, key=lambda job: str(_created(job)), reverse=True)

    def delete(self, name: str) -> None:
        """Delete a RayJob with its Ray cluster."""
        with self.asked(f"delete the RayJob {name}"):
            self._objects().delete_namespaced_custom_object(*self._kind(), name)

    def token(self, job: Document) -> str | None:
        """The token of the job's Ray cluster: RAY_AUTH_TOKEN, else from the secret it names."""
        options = job["spec"].get("rayClusterSpec", {}).get("authOptions", {})
        if options.get("mode") != "token":
            return None
        if given := os.environ.get("RAY_AUTH_TOKEN"):
            return given
        from kubernetes.client import CoreV1Api

        name = options.get("secretName") or job.get("status", {}).get("rayClusterName")
        with self.asked(f"read the secret {name} (RAY_AUTH_TOKEN would do as well)"):
            secret = CoreV1Api(self.api).read_namespaced_secret(name, self.namespace)
        return base64.b64decode(secret.data["auth_token"]).decode()

    def kinds(self) -> set[str]:
        """The Ray kinds that Kubernetes knows."""
        with self.asked("know Ray kinds"):
            listed = self._objects().get_api_resources(GROUP, VERSION)
        return {resource.kind for resource in listed.resources}

    def _objects(self) -> Any:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self.api)

    def _kind(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """What the server or the way to it objects to, as one line."""
        from kubernetes.client import ApiException
        from kubernetes.dynamic.exceptions import DynamicApiError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (ApiException, DynamicApiError) as error:
            told = _said(error)
            if error.status == 404 and "page not found" in told:
                told = "it knows no such kind; is KubeRay installed?"
            said = f"Kubernetes does not {what} in {self.namespace}: {told}"
            raise (Unreachable if error.status in _PASSING else Refused)(said) from error
        except (HTTPError, OSError) as error:
            raise Unreachable(f"Kubernetes does not answer: {reason(error)}") from error


class Refused(JobError):
    """The server said no."""


class Unreachable(JobError):
    """No answer that says anything; it may be different in a moment."""


def row(job: Document) -> JobRow:
    """A RayJob as a line of a list."""
    status = job.get("status") or {}
    word = status.get("jobStatus") or status.get("jobDeploymentStatus") or "PENDING"
    return JobRow(
        job["metadata"]["name"],
        str(word),
        str(_created(job)),
        job["spec"].get("entrypoint", ""),
        " ".join(filter(None, (status.get("reason"), status.get("message")))),
    )


def _created(job: Document) -> str:
    return str(job["metadata"].get("creationTimestamp", ""))


def _said(error: Any) -> str:
    """The message of an API server's answer, in one line."""
    try:
        said: Mapping[str, Any] = json.loads(error.body)
        text = str(said["message"])
    except (TypeError, ValueError, KeyError):
        text = str(error.body or error.reason or error)
        text = text.decode() if isinstance(text, bytes) else text
    return " ".join(text.split())[:400] or f"status {error.status}"
