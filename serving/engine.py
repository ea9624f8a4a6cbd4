"""What answers behind the API: a `Batcher`, or a twin without weights."""

from typing import Protocol

from serving.classifier import ModelInfo, Verdict


class Engine(Protocol):
    """A model that takes mail texts from one event loop."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def ready(self) -> bool: ...

    async def classify(self, text: str) -> Verdict: ...
