"""A challenger: another model that some requests are tried on, and that goes when it does harm.

In shadow it scores mails that the champion has answered, while that has nothing to do; in canary it
answers a share of the requests, and the champion scores those afterwards. Either way the two are
compared mail by mail. A challenger that breaks a limit is turned off; none is ever promoted here.
"""

import asyncio
import contextvars
import logging
import time
import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from serving.classifier import ModelInfo
from serving.engine import Engine, Scored
from training.schema import Section

_PENDING = 8
"""Mails that wait to be compared; what comes beyond them is dropped, and counted."""

_PATIENCE_S = 2.0
"""How long one of them waits for an engine that has nothing to do."""

_LOOK_S = 0.005

logger = logging.getLogger(__name__)


class Limits(Section):
    """What a challenger may do; beyond, it is turned off."""

    after: int = Field(default=200, ge=1)
    """Mails by which it is judged; it goes earlier where these could not save it."""
    errors: float = Field(default=0.01, ge=0, le=1)
    """The share of its mails that it may fail to score."""
    latency_ratio: float = Field(default=2.0, gt=0)
    """How many times the champion's time it may take for the same mails."""
    disagreement: float = Field(default=0.05, ge=0, le=1)
    """The share of its mails that it may give another label."""


class ChallengerConfig(Section):
    """Another model beside the one that is served."""

    model: str | None = None
    """NAME@ALIAS, NAME:VERSION or a bundle's directory; none by default."""
    mode: Literal["shadow", "canary"] = "shadow"
    """`shadow` scores mails that were answered, `canary` answers some."""
    share: float = Field(default=0.1, gt=0, le=1)
    """The share of requests that it is tried on; a request id is always on the same side."""
    limits: Limits = Limits()
    """Beyond these it is turned off."""


@dataclass(slots=True)
class Tally:
    """What a challenger has done, in counts that add up over replicas."""

    requests: int = 0
    """Mails that it was given, those that were dropped not among them."""
    errors: int = 0
    """Those that it did not score."""
    dropped: int = 0
    """Mails that were not compared, as the server had too much to do."""
    compared: int = 0
    """Mails that both have scored."""
    label_changes: int = 0
    """Those that got another label."""
    score_difference: float = 0.0
    """The sum over them of the mean absolute difference of the labels' probabilities."""
    champion_ms: float = 0.0
    """What the champion took for them all: tokens, queue and forward."""
    challenger_ms: float = 0.0
    """What the challenger took for the same."""


@dataclass(frozen=True, slots=True)
class ChallengerFacts:
    """A challenger as `GET /v1/models` tells it."""

    model: ModelInfo
    mode: Literal["shadow", "canary"]
    share: float
    since: float
    """In seconds since 1970."""
    off: str | None
    """Why it was turned off; None while it is on."""
    tally: Tally


class Challenger:
    """An engine that is tried; it lives in the event loop of the requests."""

    def __init__(self, engine: Engine, config: ChallengerConfig) -> None:
        self.engine: Engine | None = engine
        self.model = engine.model
        self.config = config
        self.tally = Tally()
        self.off: str | None = None
        self.since = time.time()
        self._pending: deque[tuple[str, Scored, Engine]] = deque()
        self._comparing: asyncio.Task[None] | None = None

    def takes(self, request_id: str) -> bool:
        """Whether a request is one of those that it is tried on."""
        return (
            self.engine is not None
            and zlib.crc32(request_id.encode("utf-8", "replace")) < self.config.share * 2**32
        )

    async def answer(self, text: str, champion: Engine, deadline: float | None) -> Scored:
        """Score a mail in canary; where it fails, the champion does."""
        if self.engine is None:
            return await champion.classify(text, deadline=deadline)
        self.tally.requests += 1
        try:
            scored = await self.engine.classify(text, deadline=deadline)
        except Exception as error:
            self._failed(error)
            return await champion.classify(text, deadline=deadline)
        self._later(text, scored, champion)
        return scored

    def mirror(self, text: str, scored: Scored, champion: Engine) -> None:
        """Score a mail in shadow that the champion has scored; later, and only if there is time."""
        self._later(text, scored, champion)

    def stop(self, reason: str) -> None:
        """Turn it off for good."""
        if self.off is None:
            self.off = reason
            self.engine = None
            self._pending.clear()
            logger.warning(
                "challenger %s:%s is off: %s", self.model.name, self.model.version, reason
            )

    def facts(self) -> ChallengerFacts:
        """What it has done until now."""
        return ChallengerFacts(
            self.model, self.config.mode, self.config.share, self.since, self.off,
            replace(self.tally),
        )  # fmt: skip

    def _later(self, text: str, scored: Scored, champion: Engine) -> None:
        if len(self._pending) >= _PENDING:
            self.tally.dropped += 1
            return
        self._pending.append((text, scored, champion))
        if self._comparing is None or self._comparing.done():
            # It goes on with other requests' mails: what it logs is not this one's.
            self._comparing = asyncio.get_running_loop().create_task(
                self._compare(), context=contextvars.Context()
            )

    async def _compare(self) -> None:
        while self._pending and (engine := self.engine) is not None:
            text, first, champion = self._pending.popleft()
            if not await _idle(champion):
                self.tally.dropped += 1
                continue
            shadow = self.config.mode == "shadow"
            if shadow:
                self.tally.requests += 1
            try:
                second = await (engine if shadow else champion).classify(text)
            except Exception as error:
                if shadow:
                    self._failed(error)
                else:
                    self.tally.dropped += 1
                continue
            self._note(*((first, second) if shadow else (second, first)))
            del engine, champion  # or a model that is replaced would stay until the next mail

    def _note(self, champion: Scored, challenger: Scored) -> None:
        tally, ours, theirs = self.tally, champion.verdict, challenger.verdict
        tally.compared += 1
        tally.label_changes += (ours.label, ours.labels) != (theirs.label, theirs.labels)
        labels = ours.scores.keys() | theirs.scores.keys()
        tally.score_difference += sum(
            abs(ours.scores.get(label, 0.0) - theirs.scores.get(label, 0.0)) for label in labels
        ) / len(labels)
        tally.champion_ms += _milliseconds(champion)
        tally.challenger_ms += _milliseconds(challenger)
        self._judge()

    def _failed(self, error: Exception) -> None:
        if self.engine is None:
            return  # it was turned off meanwhile
        self.tally.errors += 1
        logger.warning("challenger %s:%s failed: %s", self.model.name, self.model.version,
                       type(error).__name__)  # fmt: skip
        self._judge()

    def _judge(self) -> None:
        tally, limits = self.tally, self.config.limits
        if tally.errors > limits.errors * max(tally.requests, limits.after):
            self.stop(f"{tally.errors} errors in {tally.requests} mails")
        elif tally.label_changes > limits.disagreement * max(tally.compared, limits.after):
            self.stop(f"{tally.label_changes} of {tally.compared} mails got another label")
        elif tally.compared >= limits.after and (
            tally.challenger_ms > limits.latency_ratio * tally.champion_ms
        ):
            ratio = tally.challenger_ms / max(tally.champion_ms, 1e-9)
            self.stop(f"{ratio:.2f} times the champion's time, for {tally.compared} mails")


async def _idle(engine: Any) -> bool:
    """Wait until an engine has nothing to do; false if it always has."""
    until = time.monotonic() + _PATIENCE_S
    while getattr(engine, "busy", False):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


def _milliseconds(scored: Scored) -> float:
    timings = scored.timings
    return timings.tokenize + timings.queue + timings.forward
