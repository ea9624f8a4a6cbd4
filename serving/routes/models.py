"""GET /v1/models: what answers, whence it comes, and how a challenger does."""

from dataclasses import asdict

from fastapi import APIRouter

from serving.answers import Challenge, Following, Model, Models
from serving.lineup import Facts, Lineup
from serving.service import Service


def routes(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def models() -> Models:
        """Which models answer, and what they read of a mail."""
        engine = service.engine
        if isinstance(engine, Lineup):
            return _told(engine.facts())
        return Models(models=[Model(role="champion", **asdict(engine.model))])

    return router


def _told(facts: Facts) -> Models:
    found = [Model(role="champion", **asdict(facts.model))]
    challenger = facts.challenger
    challenge = None
    if challenger is not None:
        found.append(Model(role="challenger", **asdict(challenger.model)))
        challenge = Challenge(
            mode=challenger.mode,
            share=challenger.share,
            off=challenger.off,
            tally=asdict(challenger.tally),
        )
    elif facts.challenger_fault is not None:
        challenge = Challenge(mode=None, share=None, off=facts.challenger_fault, tally={})
    following = Following(
        since=facts.since,
        follows=facts.follows,
        wanted=facts.wanted,
        fault=facts.fault,
        checked=facts.checked,
    )
    return Models(models=found, following=following, challenge=challenge)
