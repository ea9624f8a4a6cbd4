"""An engine without weights, for tests of what stands around engines."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from serving.classifier import ModelInfo, Verdict
from serving.engine import Scored, Timings

INFO = ModelInfo("twin", "1", ("ham", "spam"), False, 1, (), 64, "fp32")


class Twin:
    """Says of each mail what it is told to say; `go` lets it answer."""

    def __init__(
        self,
        version: str = "1",
        *,
        spam: float = 0.25,
        ms: float = 1.0,
        extras: tuple[str, ...] = (),
    ) -> None:
        self.model = replace(INFO, version=version, extras=extras)
        self.ready = True
        self.busy = False
        self.closed = False
        self.spam, self.ms = spam, ms
        self.fault: Callable[[], Exception] | None = None
        self.texts: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        self.texts.append(text)
        await self.go.wait()
        if self.fault is not None:
            raise self.fault()
        label = "spam" if self.spam >= 0.5 else "ham"
        scores = {"ham": 1 - self.spam, "spam": self.spam}
        verdict = Verdict(label, (label,), scores[label], scores, "twin", self.model.version)
        return Scored(verdict, Timings(0.0, 0.0, self.ms))

    def close(self) -> None:
        self.closed = True


async def quiet() -> None:
    """Until tasks in the background have had their turn."""
    for _ in range(50):
        await asyncio.sleep(0)
