"""GET /v1/drift: how far the mails of late are from those that the model was tested on."""

from dataclasses import asdict

from fastapi import APIRouter

from serving.board import Board
from serving.drift import compared, drift_of, worst
from serving.drifted import DriftReport, QuantityDrift
from serving.service import Service


def routes(service: Service, board: Board) -> APIRouter:
    """The route over a service and what its replicas tell."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/drift")
    async def drift() -> DriftReport:
        """Compare scores, lengths and labels of a window's mails with the reference in the bundle.

        The counts are of all replicas that answer with the same model.
        """
        found = drift_of(service.engine)
        if found is None:
            return _unmeasured(service)
        counts, replicas = found.together([each.drift for each in await board.all(metrics=False)])
        shifts = compared(found.reference, counts)
        return DriftReport(
            model=found.model.name,
            version=found.model.version,
            state=worst(shifts),
            window_h=found.hours,
            replicas=replicas,
            mails=counts.mails,
            reference_mails=found.reference.mails,
            reference_splits=list(found.reference.splits),
            score_of=found.score_of,
            quantities=[QuantityDrift(**asdict(shift)) for shift in shifts],
        )

    return router


def _unmeasured(service: Service) -> DriftReport:
    model = service.engine.model
    return DriftReport(
        model=model.name, version=model.version, state="no_reference", window_h=0.0, replicas=0,
        mails=0, reference_mails=0, reference_splits=[], score_of=None, quantities=[],
    )  # fmt: skip
