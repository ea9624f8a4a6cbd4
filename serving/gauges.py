"""What a replica stands at when a scrape comes: read then, so that requests pay nothing for it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.challenger import ChallengerFacts
from serving.engine import Engine
from serving.lineup import Lineup

_TALLY = {
    "requests": "Mails that the challenger was given.",
    "errors": "Of them those that it did not score.",
    "dropped": "Mails that were not compared, as the server had too much to do.",
    "compared": "Mails that champion and challenger have both scored.",
    "label_changes": "Of them those that got another label.",
    "score_difference": "Over them, the sum of the mean absolute difference of probabilities.",
}


class Standing(Collector):
    """The gauges of an engine, and of a lineup where it is one."""

    def __init__(self, engine: Engine, in_flight: Callable[[], int]) -> None:
        self._engine = engine
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        engine: Any = self._engine
        lineup = engine if isinstance(engine, Lineup) else None
        batcher: Any = lineup.current.engine if lineup else engine
        model = engine.model
        yield _gauge("requests_in_flight", "Requests being worked on.", self._in_flight())
        yield _gauge("ready", "Whether mails are taken.", engine.ready)
        yield _gauge("mails_queued", "Mails that wait.", getattr(batcher, "queued", 0))
        yield _gauge("lanes_busy", "Forwards that run.", getattr(batcher, "running", 0))
        info = GaugeMetricFamily(
            "mailray_model_info",
            "The model that answers.",
            labels=("model", "version", "runtime", "precision"),
        )
        info.add_metric((model.name, model.version, model.runtime, model.precision), 1)
        yield info
        if lineup is not None:
            yield from _of_lineup(lineup)

    def describe(self) -> Iterator[Metric]:
        """Nothing: their names are this module's alone."""
        yield from ()


def _of_lineup(lineup: Lineup) -> Iterator[Metric]:
    facts = lineup.facts()
    behind = facts.wanted is not None
    yield _gauge("alias_fault", "Whether the alias cannot be followed.", facts.fault is not None)
    yield _gauge("alias_behind", "Whether the alias stands at another version.", behind)
    yield _gauge("model_since_seconds", "Since when it answers, in Unix time.", facts.since)
    rollovers = CounterMetricFamily("mailray_rollovers", "Models that took another's place.")
    rollovers.add_metric((), lineup.rollovers)
    yield rollovers
    if facts.challenger is not None:
        yield from _of_challenger(facts.challenger)


def _of_challenger(facts: ChallengerFacts) -> Iterator[Metric]:
    names = ("model", "version", "mode")
    values = (facts.model.name, facts.model.version, facts.mode)
    on = GaugeMetricFamily("mailray_challenger_on", "Whether it is still tried.", labels=names)
    on.add_metric(values, facts.off is None)
    yield on
    tally = asdict(facts.tally)
    for name, meaning in _TALLY.items():
        counter = CounterMetricFamily(f"mailray_challenger_{name}", meaning, labels=names)
        counter.add_metric(values, tally[name])
        yield counter
    took = CounterMetricFamily(
        "mailray_challenger_seconds",
        "What each of the two took for the mails compared.",
        labels=(*names, "side"),
    )
    for side in ("champion", "challenger"):
        took.add_metric((*values, side), tally[f"{side}_ms"] / 1000)
    yield took


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mailray_{name}", meaning, value=float(value))
