"""A stand-in for a Kubernetes API server: keeps objects, and fails as it is told."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.conftest import unused_port

KINDS = {
    "v1": {"secrets": "Secret", "nodes": "Node", "persistentvolumeclaims": "PersistentVolumeClaim"},
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "ray.io/v1": {
        "rayjobs": "RayJob",
        "rayclusters": "RayCluster",
        "rayservices": "RayService",
    },
}


@dataclass(slots=True)
class Server:
    """What it keeps, by plural and name, and the answers that come before it looks."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    faults: deque[tuple[str, int, str]] = field(default_factory=deque)
    """A method, a status, a message: each for one request of its kind."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    kinds: dict[str, dict[str, str]] = field(default_factory=lambda: dict(KINDS))
    denied: set[str] = field(default_factory=set)
    """Resources that nobody here may do anything with."""
    url: str = ""

    def add(self, plural: str, name: str, **parts: Any) -> dict[str, Any]:
        """Put an object there."""
        parts.setdefault("metadata", {})["name"] = name
        self.objects[plural, name] = parts
        return parts

    def kubeconfig(self) -> str:
        """What KUBECONFIG is to hold."""
        context = {"cluster": "here", "user": "me", "namespace": "mail"}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "here", "cluster": {"server": self.url}}],
                "users": [{"name": "me", "user": {"token": "t"}}],
                "contexts": [{"name": "test", "context": context}],
            }
        )


def answer(code: int, message: str = "") -> JSONResponse:
    """A `Status`, as the API server words its refusals."""
    return JSONResponse(
        {"kind": "Status", "status": "Failure", "message": message, "code": code}, code
    )


def app(server: Server) -> FastAPI:
    """The paths that the official client asks for."""
    made = FastAPI()

    @made.get("/version/")
    def version() -> Any:
        unsaid = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform")
        said = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        return said | dict.fromkeys(unsaid, "")

    @made.get("/api")
    def core() -> Any:
        return {"kind": "APIVersions", "versions": ["v1"]}

    @made.get("/apis")
    def groups() -> Any:
        found = [name.split("/") for name in server.kinds if "/" in name]
        listed = [
            {"name": group, "preferredVersion": {"groupVersion": f"{group}/{version}"},
             "versions": [{"groupVersion": f"{group}/{version}", "version": version}]}
            for group, version in found
        ]  # fmt: skip
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}

    @made.get("/api/v1")
    def core_kinds() -> Any:
        return _kinds(server, "v1")

    @made.get("/apis/{group}/{version}")
    def kinds(group: str, version: str) -> Any:
        return _kinds(server, f"{group}/{version}")

    @made.api_route("/{rest:path}", methods=["GET", "POST", "PATCH", "DELETE"], response_model=None)
    async def objects(rest: str, request: Request) -> Any:
        body = yaml.safe_load(await request.body()) if request.method in ("POST", "PATCH") else None
        return _serve(server, request.method, rest, body)

    return made


def _kinds(server: Server, version: str) -> Any:
    if version not in server.kinds:
        return answer(404, "404 page not found")
    return {
        "kind": "APIResourceList",
        "groupVersion": version,
        "resources": [
            {"name": plural, "kind": kind, "namespaced": True, "singularName": "",
             "verbs": ["create", "delete", "get", "list", "patch"]}
            for plural, kind in server.kinds[version].items()
        ],
    }  # fmt: skip


def _serve(server: Server, method: str, path: str, body: Any) -> Any:
    server.asked.append((method, path))
    for fault in server.faults:
        if fault[0] == method:
            server.faults.remove(fault)
            return answer(*fault[1:])
    words = path.split("/")
    if words[-1] == "selfsubjectaccessreviews":
        resource = body["spec"]["resourceAttributes"]["resource"]
        return JSONResponse(body | {"status": {"allowed": resource not in server.denied}}, 201)
    if words[-1] in server.denied:
        return answer(403, f"{words[-1]} is forbidden")
    if "namespaces" not in words:  # a list over all of them, or of what has none
        items = [each for (kind, _), each in server.objects.items() if kind == words[-1]]
        return {"kind": "List", "metadata": {}, "items": items}
    at = words.index("namespaces")
    assert words[at + 1] == "mail", path
    if words[at + 2] in server.denied:
        return answer(403, f"{words[at + 2]} is forbidden")
    plural, name = words[at + 2], words[at + 3] if len(words) > at + 3 else ""
    if method == "POST":
        key = plural, body["metadata"]["name"]
        if key in server.objects:
            return answer(409, f'{plural} "{key[1]}" already exists')
        server.objects[key] = body
        return JSONResponse(body, 201)
    if method == "PATCH":
        server.objects[plural, name] = body
        return body
    if not name:
        items = [each for (kind, _), each in server.objects.items() if kind == plural]
        return {"kind": "List", "metadata": {}, "items": items}
    if (plural, name) not in server.objects:
        return answer(404, f'{plural} "{name}" not found')
    if method == "DELETE":
        return server.objects.pop((plural, name))
    return server.objects[plural, name]


@contextmanager
def serving() -> Iterator[Server]:
    """The server, in a thread, for the time of the block."""
    server = Server()
    port = unused_port()
    server.url = f"http://127.0.0.1:{port}"
    http = uvicorn.Server(
        uvicorn.Config(app(server), host="127.0.0.1", port=port, log_level="critical")
    )
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    while not http.started:
        time.sleep(0.01)
    try:
        yield server
    finally:
        http.should_exit = True
        thread.join()
