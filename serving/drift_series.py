"""Drift in Prometheus' terms: what each replica counts, and how far all together are.

The counts let a query take another window than the server's (README.md has it). The index is of
all replicas at once, so it is told once, without the label `replica`: those of some mails each
would be larger by chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.drift import Drift, compared, drift_of

_OF: Final = ("quantity", "model", "version")
_BINS: Final = (*_OF, "bin")


class DriftCounts(Collector):
    """The mails that a replica has counted since the model began."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """A counter for each bin; none where nothing is measured."""
        drift = drift_of(self._engine)
        if drift is None:
            return
        family = CounterMetricFamily(
            "mailray_drift_mails", "Mails in each bin of the reference.", labels=_BINS
        )
        total = drift.total
        counts = {"score": total.score, "length": total.length, "label": total.label}
        for shift in compared(drift.reference, total):
            for each, count in zip(shift.bins, counts[shift.quantity], strict=True):
                family.add_metric((*_named(shift.quantity, drift), each.name), count)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Nothing: their names are this module's alone."""
        yield from ()


class _Together(Collector):
    def __init__(self, drift: Drift, told: Sequence[Mapping[str, Any] | None]) -> None:
        self._drift = drift
        self._counts, _ = drift.together(told)

    def collect(self) -> Iterator[Metric]:
        drift = self._drift
        psi, chance, mails = (
            GaugeMetricFamily(f"mailray_drift_{name}", meaning, labels=labels)
            for name, meaning, labels in (
                ("psi", "How far the mails of the window are from the reference.", _OF),
                ("chance", "What the PSI is beyond once in 1,000 windows by chance.", _OF),
                ("reference_mails", "Mails of the reference in each bin.", _BINS),
            )
        )
        for shift in compared(drift.reference, self._counts):
            of = _named(shift.quantity, drift)
            if shift.psi is not None and shift.chance is not None:
                psi.add_metric(of, shift.psi)
                chance.add_metric(of, shift.chance)
            for each in shift.bins:
                mails.add_metric((*of, each.name), round(each.reference * drift.reference.mails))
        yield from (psi, chance, mails)


def series(engine: Any, told: Sequence[Mapping[str, Any] | None]) -> str:
    """Of what all replicas tell of an engine's model, in Prometheus' text format."""
    drift = drift_of(engine)
    if drift is None:
        return ""
    registry = CollectorRegistry()
    registry.register(_Together(drift, told))
    return generate_latest(registry).decode()


def _named(quantity: str, drift: Drift) -> tuple[str, str, str]:
    return quantity, drift.model.name, drift.model.version
