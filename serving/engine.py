"""What answers behind the API: a `Batcher`, or a twin without weights."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from serving.classifier import ModelInfo, Verdict
from serving.explanation import Explanation
from training.mail import Mail


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a mail's time went, in milliseconds."""

    tokenize: float
    """From its text to tokens, the wait for a thread included."""
    queue: float
    """Until its forward began."""
    forward: float
    """Of the batch that it was in."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A mail's verdict and what it took."""

    verdict: Verdict
    timings: Timings


class Engine(Protocol):
    """A model that takes mail texts from one event loop."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def ready(self) -> bool: ...

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        """The verdict on one mail text.

        `deadline` is a time of `time.monotonic()`, in seconds; None is the engine's own default.

        Raises:
            ApiError: `overloaded`, `deadline_exceeded`, `not_ready` once closed.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """What an engine has beside, where its model can be explained."""

    async def explain(
        self, text: str, *, mail: Mail | None, label: str | None, deadline: float
    ) -> Explanation:
        """As `serving.explanation.Explainer.explain`; `deadline` as that of `Engine.classify`.

        Raises:
            ApiError: `overloaded`, `deadline_exceeded`, `not_explainable`, `not_ready`.
        """
        ...


@runtime_checkable
class Assigning(Protocol):
    """An engine over several models."""

    def assigned(self, request_id: str) -> Engine:
        """The one for a request; a request id always gets the same, while they stay."""
        ...
