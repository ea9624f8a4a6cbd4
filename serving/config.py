"""The serving config: which bundle, where it listens, and how much it takes on at once."""

from typing import Literal

from pydantic import Field, field_validator

from serving.challenger import ChallengerConfig
from serving.decision import Band, PointName
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
    """The address to listen on; `0.0.0.0` is all of them, and the API has no authentication."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The TCP port."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores, and so Torch threads, of each replica; one fits on any machine."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 weights where the hardware computes in it, fp32 elsewhere."""
    batch_tokens: int = Field(default=4_096, ge=1)
    """Tokens that are scored together, padding included; a mail of more is scored alone."""
    operating_point: PointName = "auto"
    """`strict`, `balanced`, `lenient`; `auto` is balanced where the bundle has it, `none` gives the
    most probable label."""
    abstain: Band | None = None
    """Verdicts with a probability of the second label from the first number to the second are
    `unsure`."""
    max_in_flight: int = Field(default=256, ge=1)
    """Requests that a replica works on at once; the next one is answered 429."""
    max_queued: int = Field(default=512, ge=1)
    """Mails that wait in a replica for their forward; the next one is answered 429."""
    request_timeout_ms: float = Field(default=30_000.0, gt=0, le=600_000)
    """A request that has no verdict by then is answered 504; `X-Request-Timeout-Ms` asks for
    less."""
    # No more than a mail may have: a body within the limit is then never too large a mail.
    max_body_bytes: int = Field(default=MAX_MAIL_BYTES, ge=1, le=MAX_MAIL_BYTES)
    """The largest request body; a larger one is answered 413."""

    @field_validator("abstain")
    @classmethod
    def _is_a_band(cls, band: Band | None) -> Band | None:
        if band is not None and not 0 <= band[0] <= band[1] <= 1:
            raise ValueError(f"abstain: two probabilities, the lower first, got {list(band)}")
        return band
