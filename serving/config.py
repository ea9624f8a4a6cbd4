"""The serving config: which bundle, where it listens, and how much it takes on at once."""

import ipaddress
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serving.access import Area
from serving.challenger import ChallengerConfig
from serving.decision import Band, PointName
from serving.proxy import ProxyName
from training.mail import MAX_MAIL_BYTES
from training.schema import Section


class ServeConfig(Section):
    """A served classifier."""

    model: str
    """A bundle's directory, NAME:VERSION, or NAME@ALIAS (NAME is its champion), which is followed:
    when the alias moves, every replica changes over."""
    watch_s: float = Field(default=3.0, ge=0)
    """How often a replica asks the registry where an alias stands, in seconds; 0 is never."""
    challenger: ChallengerConfig = ChallengerConfig()
    """Another model that some requests are tried on."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is all of them, and needs `tokens` or `open`."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The TCP port."""
    proxy: ProxyName = "auto"
    """What `mailray serve` puts in front of the replicas: `haproxy`, which Ray brings for Linux, or
    `ray`, Serve's own, which is slower; `auto` is HAProxy where Ray has brought it. On a cluster
    that is joined its operator decides."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores, and so threads of the runtime, of each replica; one fits on any machine."""
    runtime: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """`auto`: each replica times what the bundle has (`mailray export`), and takes the fastest."""
    precision: Literal["auto", "bf16", "fp32", "int8"] = "auto"
    """`auto`: PyTorch has bf16 weights where the hardware computes in it and fp32 elsewhere;
    of exports the fastest is taken."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens that are scored together, padding included; a mail of more is scored alone. By default
    1,024 on a CPU, where more make each mail wait longer and hardly a forward faster, and 8,192 on
    a GPU."""
    operating_point: PointName = "auto"
    """`strict`, `balanced`, `lenient`; `auto` is balanced where the bundle has it, `none` gives the
    most probable label."""
    abstain: Band | None = None
    """Verdicts with a probability of the second label from the first number to the second are
    `unsure`."""
    max_in_flight: int = Field(default=512, ge=1)
    """Requests that a replica works on at once; the next one is answered 429."""
    max_queued: int = Field(default=256, ge=1)
    """Mails that wait in a replica for their forward; the next one is answered 429, with a
    Retry-After of the time that they will take. Below `max_in_flight`, which knows no such time.
    The proxy refuses what asks for work while so many requests, and one more for each of `cpus`,
    are under way for each replica."""
    request_timeout_ms: float = Field(default=30_000.0, gt=0, le=600_000)
    """A request that has no verdict by then is answered 504; `X-Request-Timeout-Ms` asks for
    less."""
    max_mails: int = Field(default=64, ge=1)
    """The most mails in one request; more are answered 422."""
    explain_seconds: float = Field(default=5.0, gt=0, le=600)
    """How long an explanation may take; one that is not exact by then says so."""
    explain_in_flight: int = Field(default=2, ge=1)
    """Mails that a replica explains at once, one after another; the next one is answered 429."""
    drift_window_h: float = Field(default=24.0, gt=0, le=24 * 366)
    """Hours of mail that drift is told of; a window of few mails shows only large changes."""
    page: bool = True
    """Whether there is a page for people at `/`."""
    # No more than a mail may have: a body within the limit is then never too large a mail.
    max_body_bytes: int = Field(default=MAX_MAIL_BYTES, ge=1, le=MAX_MAIL_BYTES)
    """The largest request body; a larger one is answered 413."""
    body_timeout_s: float = Field(default=30.0, gt=0, le=120)
    """The longest that a body may take to arrive, in seconds; then it is answered 408."""
    tokens: str | None = None
    """The file of the bearer tokens that callers need, as `mailray tokens create` writes it."""
    open: bool = False
    """Without `tokens`, answer callers of other machines, too: whoever can reach it may use it."""
    public: tuple[Area, ...] = ("docs", "page")
    """What needs no token beside the probes of health: docs, page, metrics."""
    feedback: str | None = None
    """Where feedback is kept: `sqlite:///FILE`, `postgresql://...`, or `none` to take none; by
    default what MAILRAY_FEEDBACK_URL says, else a file in MAILRAY_HOME. A URL with a password
    belongs into the environment."""
    feedback_days: int | None = Field(default=None, ge=1)
    """Feedback that is older is erased; by default none is."""

    log: str | None = None
    """The directory where each replica writes a JSON line for each request, or `none`; by default
    `logs/serve` in MAILRAY_HOME. On a cluster best a disk of the node, as
    `/tmp/ray/session_latest/logs/serve`."""
    tracing: str | None = None
    """The collector that gets OpenTelemetry's traces by OTLP over HTTP: `http://HOST:4318`; needs
    `mailray[otel]`. Headers that it asks for stand in OTEL_EXPORTER_OTLP_HEADERS."""
    tracing_share: float = Field(default=1.0, ge=0, le=1)
    """The share of requests that are traced, of those whose caller does not decide."""

    @field_validator("abstain")
    @classmethod
    def _is_a_band(cls, band: Band | None) -> Band | None:
        if band is not None and not 0 <= band[0] <= band[1] <= 1:
            raise ValueError(f"abstain: two probabilities, the lower first, got {list(band)}")
        return band

    @field_validator("tokens")
    @classmethod
    def _from_anywhere(cls, file: str | None) -> str | None:
        """Replicas work in a directory of their own."""
        return str(Path(file).expanduser().absolute()) if file else None

    @field_validator("log")
    @classmethod
    def _log_from_anywhere(cls, folder: str | None) -> str | None:
        return folder if folder == "none" else cls._from_anywhere(folder)

    @field_validator("tracing")
    @classmethod
    def _is_a_collector(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            right = False
        if not right or parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "tracing: a collector's URL, http://HOST:4318, without user or query (secrets go "
                "into OTEL_EXPORTER_OTLP_HEADERS)"
            )
        return url

    @model_validator(mode="after")
    def _is_not_open_by_accident(self) -> Self:
        if self.tokens is None and not self.open and not _loopback(self.host):
            raise ValueError(
                f"host: {self.host} lets other machines in: set tokens=FILE (`mailray tokens "
                "create` makes it), or open=true to serve whoever can reach it"
            )
        return self


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
