"""A collector of OpenTelemetry's traces on this machine, which keeps what it is sent."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """What came, and where it listens."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.url = ""

    @property
    def resources(self) -> list[dict[str, Any]]:
        """The attributes of each batch's sender."""
        return [_plain(each.resource.attributes) for each in self._parts()]

    @property
    def spans(self) -> list[Any]:
        """All spans."""
        return [
            span for each in self._parts() for scope in each.scope_spans for span in scope.spans
        ]

    def named(self, name: str) -> Any:
        """The only span of that name."""
        [span] = [span for span in self.spans if span.name == name]
        return span

    def _parts(self) -> list[Any]:
        return [
            each
            for body in self.bodies
            for each in ExportTraceServiceRequest.FromString(body).resource_spans
        ]


def told(span: Any) -> dict[str, Any]:
    """A span's attributes."""
    return _plain(span.attributes)


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the time of the block."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            found.paths.append(self.path)
            found.bodies.append(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()
