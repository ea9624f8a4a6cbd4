"""The lineup: the model that answers, the one that takes its place, and a challenger.

A new version is made ready beside the old one and takes its place between two requests. A request
keeps the engine that it was assigned, since its mail was read as that model reads mail; an engine
that has been replaced is closed when the last such request lets it go.
"""

import logging
import time
import uuid
import weakref
from dataclasses import dataclass
from typing import Any, Final, Protocol

from serving.challenger import Challenger, ChallengerConfig, ChallengerFacts
from serving.classifier import ModelInfo
from serving.drift import Drift, drift_of
from serving.engine import Engine, Explains, Scored
from serving.errors import ApiError
from serving.explanation import Explanation
from training.mail import Mail

IS_CHAMPION: Final = "it is the champion"
"""Why a challenger is none any more, once it was promoted."""

logger = logging.getLogger(__name__)


class ClosableEngine(Engine, Protocol):
    """An engine with threads of its own."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """Who answers in this replica, for `GET /v1/models` and `/readyz`."""

    model: ModelInfo
    since: float
    """When it began to answer, in seconds since 1970."""
    follows: str | None
    """NAME@ALIAS, where the model is replaced when that moves."""
    wanted: str | None
    """The version that the alias stands at, where that is not the one that answers."""
    fault: str | None
    """Why the alias is not followed, in one line."""
    checked: float | None
    """When the registry last told where the alias stands, in seconds since 1970."""
    challenger: ChallengerFacts | None
    challenger_fault: str | None
    """Why there is none, where one is asked for."""


class Generation:
    """An engine with a place in the lineup; it is closed when nobody holds this any more."""

    def __init__(self, engine: ClosableEngine) -> None:
        self.model = engine.model
        self.since = time.time()
        self.engine = engine
        weakref.finalize(self, engine.close)

    @property
    def ready(self) -> bool:
        """Whether mails are taken."""
        return self.engine.ready

    @property
    def busy(self) -> bool:
        """Whether it has mails to score."""
        engine: Any = self.engine
        return bool(getattr(engine, "busy", False) or getattr(engine, "queued", 0))

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        """As `serving.engine.Engine`."""
        return await self.engine.classify(text, deadline=deadline)


class Assigned:
    """The engine of one request, whatever takes its place meanwhile."""

    def __init__(self, champion: Generation, challenger: Challenger | None) -> None:
        self._champion = champion
        self._challenger = challenger
        self._canary = challenger is not None and challenger.config.mode == "canary"

    @property
    def model(self) -> ModelInfo:
        """Whose view of the mail is asked for: a challenger has the champion's."""
        return self._champion.model

    @property
    def ready(self) -> bool:
        """Whether mails are taken."""
        return self._champion.ready

    @property
    def generation(self) -> Generation:
        """The champion's engine, for what else is asked of it."""
        return self._champion

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        """As `serving.engine.Engine`."""
        challenger = self._challenger
        if challenger is not None and self._canary:
            return await challenger.answer(text, self._champion, deadline)
        scored = await self._champion.classify(text, deadline=deadline)
        if challenger is not None:
            challenger.mirror(text, scored, self._champion)
        return scored

    async def explain(
        self, text: str, *, mail: Mail | None, label: str | None, deadline: float
    ) -> Explanation:
        """As `serving.engine.Explains`; it is the champion that is explained."""
        engine = self._champion.engine
        if not isinstance(engine, Explains):
            raise ApiError("not_explainable", "this server has no means to explain")
        return await engine.explain(text, mail=mail, label=label, deadline=deadline)


class Lineup:
    """An engine whose model can be replaced while it answers; of any thread where it says so."""

    def __init__(self, engine: ClosableEngine, *, follows: str | None = None) -> None:
        self._current = Generation(engine)
        self._challenger: Challenger | None = None
        self._open = True
        self.follows = follows
        self.wanted: str | None = None
        """Told by who watches the alias, as are `fault` and `checked`."""
        self.fault: str | None = None
        self.checked: float | None = None
        self.challenger_fault: str | None = None
        self.rollovers = 0
        """How often a model has taken another's place."""

    @property
    def model(self) -> ModelInfo:
        """The model that answers."""
        return self._current.model

    @property
    def ready(self) -> bool:
        """Whether mails are taken; false once `close` was called."""
        return self._open and self._current.ready

    @property
    def current(self) -> Generation:
        """The engine that answers."""
        return self._current

    @property
    def drift(self) -> Drift | None:
        """The mails of the model that answers, where they are counted."""
        return drift_of(self._current.engine)

    @property
    def challenger(self) -> Challenger | None:
        """The challenger, also one that was turned off."""
        return self._challenger

    def assigned(self, request_id: str) -> Assigned:
        """The engine for one request, which reads its mail as `model` of it says."""
        challenger = self._challenger
        if challenger is not None and not challenger.takes(request_id):
            challenger = None
        return Assigned(self._current, challenger)

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        """As `serving.engine.Engine`; a request with an id is better `assigned`."""
        return await self.assigned(uuid.uuid4().hex).classify(text, deadline=deadline)

    def replace(self, engine: ClosableEngine) -> None:
        """Let another model answer from now on; of any thread."""
        before = self._current.model
        self._current = Generation(engine)
        self.rollovers += 1
        challenger = self._challenger
        if challenger is not None and challenger.off is None:
            if (reason := _unfit(engine.model, challenger.model)) is not None:
                challenger.stop(reason)
            else:  # it was compared with another champion
                self.challenge(challenger.engine, challenger.config)
        logger.warning(
            "%s:%s answers now, %s:%s did",
            engine.model.name, engine.model.version, before.name, before.version,
        )  # fmt: skip

    def challenge(self, engine: Any, config: ChallengerConfig) -> None:
        """Try a model, with counts that begin at nothing; None ends it. Of any thread.

        Raises:
            ValueError: it is the champion, or reads mail in another way.
        """
        if engine is None:
            self._challenger = None
            return
        if (reason := _unfit(self.model, engine.model)) is not None:
            raise ValueError(reason)
        held = engine if isinstance(engine, Generation) else Generation(engine)
        self._challenger = Challenger(held, config)

    def facts(self) -> Facts:
        """Who answers, and what is known of who should."""
        current, challenger = self._current, self._challenger
        return Facts(
            model=current.model,
            since=current.since,
            follows=self.follows,
            wanted=self.wanted,
            fault=self.fault,
            checked=self.checked,
            challenger=None if challenger is None else challenger.facts(),
            challenger_fault=self.challenger_fault,
        )

    def close(self) -> None:
        """Take no more mails."""
        self._open = False
        if self._challenger is not None:
            self._challenger.stop("the server is closed")
        self._current.engine.close()


def _unfit(champion: ModelInfo, challenger: ModelInfo) -> str | None:
    """Why two models cannot be compared."""
    if (champion.name, champion.version) == (challenger.name, challenger.version):
        return IS_CHAMPION
    views = [(model.mail_text_version, model.extras) for model in (champion, challenger)]
    if views[0] != views[1]:
        return "it reads other parts of a mail than the champion"
    return None
