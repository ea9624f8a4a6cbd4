"""The serving config: which bundle, where it listens, and how much it takes on at once."""

from typing import Literal

from pydantic import Field

from training.mail import MAX_MAIL_BYTES
from training.schema import Section


class ServeConfig(Section):
    """A served classifier."""

    model: str
    """The bundle's directory; in a Serve config file also NAME, NAME@ALIAS or NAME:VERSION."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is all of them, and the API has no authentication."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The TCP port."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores, and so threads of the runtime, of each replica; one fits on any machine."""
    runtime: Literal["auto", "torch", "onnx"] = "auto"
    """`auto`: each replica times what the bundle has (`mailray export`), and takes the fastest."""
    precision: Literal["auto", "bf16", "fp32", "int8"] = "auto"
    """`auto`: PyTorch has bf16 weights where the hardware computes in it and fp32 elsewhere; ONNX
    Runtime takes the faster of fp32 and int8."""
    batch_size: int = Field(default=32, ge=1)
    """The most mails that are scored together; long ones are cut into smaller forwards."""
    batch_wait_ms: float = Field(default=5.0, ge=0)
    """How long the first mail of a batch waits for others, in milliseconds."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests that a replica works on at once; the next one is answered 429."""
    # No more than a mail may have: a body within the limit is then never too large a mail.
    max_body_bytes: int = Field(default=MAX_MAIL_BYTES, ge=1, le=MAX_MAIL_BYTES)
    """The largest request body; a larger one is answered 413."""
