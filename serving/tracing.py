"""Traces: each request as spans, sent to a collector by OTLP over HTTP; needs `mailray[otel]`.

A request is one server span, named and described by OpenTelemetry's conventions for HTTP, with the
stages of its mails below it. They are made when the answer has been sent, of the times that were
measured anyway. A caller's trace goes on here (W3C Trace Context), and the caller decides then
whether it is sampled; of other requests a share is. A collector that is down costs spans and one
line in the log.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from serving.account import UNMATCHED, Account
from training.schema import ConfigError

_PATH: Final = "/v1/traces"
_SPANS: Final = 8_192
"""That wait to be sent; what comes beyond is dropped."""
_EVERY_MS: Final = 2_000
_TIMEOUT_S: Final = 5.0
"""How long a collector may take for what it is sent, tries included."""
_PATIENCE_S: Final = 1.5
"""How long the end waits for the last spans to be sent."""
_MAILS: Final = 8
"""Mails of a request whose stages have spans: of more each other mail's would look the same."""

log = logging.getLogger(__name__)


def require() -> None:
    """Refuse where the packages are not there; raises ConfigError."""
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "tracing: needs OpenTelemetry's packages: pip install 'mailray[otel]'"
        ) from error


class Tracing:
    """A replica's traces, until `close`.

    Raises:
        ConfigError: OpenTelemetry's packages are not there.
    """

    def __init__(self, url: str, *, share: float, replica: str) -> None:
        """`url` is the collector's, as http://HOST:4318; its path, where it has one, is kept."""
        require()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # What they say of a collector that is down, they say each few seconds, with tracebacks.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        endpoint = url.rstrip("/")
        if "/" not in endpoint.partition("://")[2]:
            endpoint += _PATH
        self._sender: Any = OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S)
        # Of its own: the global one may be used by other libraries.
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": "mailray", "service.instance.id": replica}),
            shutdown_on_exit=False,
        )
        sender: Any = _Sender(self._sender, endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(sender, max_queue_size=_SPANS, schedule_delay_millis=_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("mailray")
        self._contexts = TraceContextTextMapPropagator()

    def request(self, account: Account) -> None:
        """Make the spans of a request that has ended."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        span = self._tracer.start_span(
            _name(account),
            self._contexts.extract(account.trace),
            SpanKind.SERVER,
            start_time=_nanoseconds(account, account.began),
        )
        if not span.is_recording():
            return
        account.trace_id = f"{span.get_span_context().trace_id:032x}"
        span.set_attributes(_attributes(account))
        if account.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for name, begin, seconds, attributes in _stages(account):
            stage = self._tracer.start_span(
                name, inside, attributes=attributes, start_time=_nanoseconds(account, begin)
            )
            stage.end(_nanoseconds(account, begin + seconds))
        span.end(_nanoseconds(account, account.began + account.seconds))

    def close(self) -> None:
        """Send what waits, if the collector takes it soon."""
        provider: Any = self._provider
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_PATIENCE_S)
        if ending.is_alive():
            self._sender.shutdown()  # it is trying again and again


class _Sender:
    """An exporter that says once that a collector is down, and once that it is back."""

    def __init__(self, sender: Any, endpoint: str) -> None:
        self._sender = sender
        self._endpoint = endpoint
        self._down = False

    def export(self, spans: Sequence[Any]) -> Any:
        """Send spans; whether that worked."""
        result = self._sender.export(spans)
        if self._down != (down := result.name != "SUCCESS"):
            self._down = down
            log.warning("traces %s %s", "do not reach" if down else "again reach", self._endpoint)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._sender.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


def _name(account: Account) -> str:
    return account.method if account.route == UNMATCHED else f"{account.method} {account.route}"


def _attributes(account: Account) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": "_OTHER" if account.method == "OTHER" else account.method,
        "http.response.status_code": account.status,
        "http.request.body.size": account.bytes_in,
        "mailray.request_id": account.request_id,
        "mailray.mails": len(account.mails),
    }
    if account.route != UNMATCHED:
        found["http.route"] = account.route
    if account.model:
        answered = account.mails[0].scored.verdict if account.mails else account
        found |= {"mailray.model": answered.model, "mailray.version": answered.version}
    if account.code:
        found["error.type"] = account.code
    return found


def _stages(account: Account) -> Iterator[tuple[str, float, float, dict[str, int]]]:
    """Name, beginning, seconds and attributes of what was done."""
    for number, mail in enumerate(account.mails[:_MAILS]):
        which, took = {"mailray.mail": number}, mail.scored.timings
        yield "parse", mail.parsed_at, mail.parse_ms / 1000, which
        begin = mail.began
        for name in ("tokenize", "queue", "forward"):
            seconds = getattr(took, name) / 1000
            yield name, begin, seconds, which
            begin += seconds
    if account.explained is not None:
        yield "explain", *account.explained, {}


def _nanoseconds(account: Account, moment: float) -> int:
    """Since 1970, of a time of `time.monotonic`."""
    return int((account.at + moment - account.began) * 1e9)
