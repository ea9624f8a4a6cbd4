"""Drift as a server tells it: of all replicas, of the model that answers, and to Prometheus."""

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.board import Snapshot
from serving.client import AsyncMailrayClient
from serving.drift import Drift, compared
from serving.drifted import DriftReport
from serving.lineup import Lineup
from tests.serving.engines import Twin as Closable
from tests.serving.references import INFO, Mails, made, stream
from tests.serving.test_batcher import Twin as Classifier
from tests.serving.test_batcher import behind, run
from tests.serving.twin import Twin, app_of

MAILS = stream(600, 3, spam=0.6)


class Board:
    """Replicas that have seen some mails each."""

    def __init__(self, *replicas: Drift | None) -> None:
        self.replicas = replicas

    async def all(self, *, metrics: bool = True) -> list[Snapshot]:
        return [
            Snapshot(str(at), 0.0, "", json.loads(json.dumps(each and each.told())))
            for at, each in enumerate(self.replicas)
        ]


def seen(mails: Mails, hours: float = 24.0) -> Drift:
    drift = Drift(made(), INFO, hours=hours)
    for mail in mails:
        drift.note(*mail)
    return drift


def asked(drift: Drift | None, path: str = "/v1/drift", board: Any = None) -> httpx.Response:
    twin: Any = Twin()
    twin.drift = drift

    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(twin, board=board))
        async with httpx.AsyncClient(transport=transport, base_url="http://mailray") as client:
            return await client.get(path)

    return asyncio.run(scenario())


def test_replicas_together_are_as_one_that_has_seen_all_mails() -> None:
    first, second = seen(MAILS[:250]), seen(MAILS[250:])
    together = asked(first, board=Board(first, second, None)).json()
    alone = asked(seen(MAILS)).json()
    assert (together.pop("replicas"), alone.pop("replicas")) == (2, 1)
    for one, other in zip(together["quantities"], alone["quantities"], strict=True):
        assert one.pop("mean") == pytest.approx(other.pop("mean"))
    assert together == alone
    assert alone["state"] == "drift"
    assert alone["mails"] == 600
    assert alone["score_of"] == "spam"


def test_a_bundle_without_a_reference_says_so() -> None:
    answer = asked(None)
    assert answer.status_code == 200
    report = DriftReport.model_validate(answer.json())
    assert (report.state, report.mails, report.quantities) == ("no_reference", 0, [])


def test_the_client_has_it_typed() -> None:
    twin: Any = Twin()
    twin.drift = seen(MAILS, hours=12)

    async def scenario() -> DriftReport:
        transport = httpx.ASGITransport(app_of(twin))
        async with AsyncMailrayClient("http://mailray", transport=transport) as client:
            return await client.drift()

    report = asyncio.run(scenario())
    assert (report.window_h, report.state) == (12, "drift")
    assert [each.quantity for each in report.quantities] == ["score", "length", "label"]


def test_a_query_over_the_counts_gives_the_same_index() -> None:
    """As README.md spells it."""
    drift = seen(MAILS)
    text = asked(drift, "/metrics").text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    of = {
        name: {
            tuple(s.labels.get(key) for key in ("quantity", "bin")): s.value
            for s in samples
            if s.name == f"mailray_drift_{name}"
        }
        for name in ("mails_total", "reference_mails", "psi", "chance")
    }
    assert of["mails_total"].keys() == of["reference_mails"].keys()
    for shift in compared(drift.reference, drift.total):
        keys = [key for key in of["mails_total"] if key[0] == shift.quantity]

        def share(name: str, key: Any, keys: list[Any] = keys) -> float:
            return (of[name][key] + 0.5) / sum(of[name][each] + 0.5 for each in keys)

        index = sum(
            (share("mails_total", key) - share("reference_mails", key))
            * math.log(share("mails_total", key) / share("reference_mails", key))
            for key in keys
        )
        assert index == pytest.approx(shift.psi)
        assert of["psi"][shift.quantity, None] == pytest.approx(shift.psi)
        assert of["chance"][shift.quantity, None] == pytest.approx(shift.chance)


def test_without_a_reference_or_mails_there_are_no_such_series() -> None:
    assert "mailray_drift" not in asked(None, "/metrics").text
    none_yet = asked(seen([]), "/metrics").text
    assert "mailray_drift_psi{" not in none_yet
    assert 'bin="spam",model="twin",quantity="label",replica="local",version="3"} 0.0' in none_yet


def test_each_mail_that_is_scored_is_counted_once() -> None:
    twin = Classifier()
    drift = Drift(made(), replace(INFO, labels=("a", "bb", "cccc", "-")))

    async def scenario(batcher: Any) -> None:
        batcher.drift = drift
        await asyncio.gather(*map(batcher.classify, ["a", "bb"]))
        tasks = await behind(batcher, twin, ["nan", "cccc"])  # one batch
        twin.go.set()
        [_, nan, good] = await asyncio.gather(*tasks, return_exceptions=True)
        assert (type(nan).__name__, good) == ("ScoreError", "cccc")

    run(scenario, twin)
    assert (drift.total.mails, drift.total.length_sum) == (4, 8)


def test_another_model_begins_anew() -> None:
    first: Any = Closable("1")
    first.drift = seen(MAILS)
    lineup = Lineup(first)
    assert lineup.drift is first.drift
    second: Any = Closable("2")
    lineup.replace(second)
    assert lineup.drift is None
