"""The metrics are exact, in a form that Prometheus reads, and say nothing that a caller made up."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from serving.access import Access
from serving.batcher import Batcher
from serving.board import Snapshot
from serving.errors import ApiError
from serving.feedback.keeper import Keeper
from serving.feedback.store import Store
from serving.lineup import Lineup
from serving.metrics import Metrics, merged
from tests.serving.engines import Twin as Closable
from tests.serving.test_batcher import Twin as Classifier
from tests.serving.twin import JSON, MAIL, RFC822, Twin, app_of, client_of, token_in

WORD = "quokka7319"


class Read:
    """The samples of a text, by name and labels."""

    def __init__(self, text: str) -> None:
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            assert family.documentation, family.name
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"{key} twice"
                self.samples[key] = sample.value

    def of(self, name: str, **labels: str) -> float | None:
        """The value with exactly these labels, or None."""
        labels = {"replica": "local", **labels}
        return self.samples.get((f"mailray_{name}", frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, has), value in self.samples.items()
            if found == f"mailray_{name}" and wanted <= has
        )


def after(
    scenario: Callable[[Any], Awaitable[None]], twin: Any = None, **settings: Any
) -> tuple[Read, str]:
    """The metrics after a scenario of requests."""

    async def whole() -> str:
        async with client_of(app_of(twin or Twin(), **settings)) as client:
            await scenario(client)
            answer = await client.get("/metrics")
            assert answer.status_code == 200
            return str(answer.text)

    text = asyncio.run(whole())
    return Read(text), text


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    found = Keeper(Store(f"sqlite:///{tmp_path / 'feedback.db'}"))
    yield found
    found.close()


def test_counts_are_exact_after_known_requests(keeper: Keeper) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.post("/v1/classify/raw", content=MAIL, headers=RFC822)
        many = {"mails": [{"body": "Hi"}, {"raw": ""}, {"body": "Ho"}]}
        await client.post("/v1/classify", json=many)
        await client.post("/v1/classify", content=b"{", headers=JSON)
        inputs = [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]
        await client.post("/v2/models/twin/infer", json={"inputs": inputs})
        await client.post("/v2/models/other/infer", json={"inputs": inputs})
        await client.post("/v1/explain", json={"body": "Hi"})
        for _ in range(2):
            await client.post("/v1/feedback", json={"request_id": "r", "label": "spam"})

    read, _ = after(scenario, keeper=keeper)
    requests = {
        ("/v1/classify/raw", "200"): 3,
        ("/v1/classify", "200"): 1,
        ("/v1/classify", "400"): 1,
        ("/v2/models/{name}/infer", "200"): 1,
        ("/v2/models/{name}/infer", "404"): 1,
        ("/v1/explain", "501"): 1,
        ("/v1/feedback", "201"): 1,
        ("/v1/feedback", "200"): 1,
    }
    for (route, status), count in requests.items():
        assert read.of("requests_total", route=route, method="POST", status=status) == count
    assert read.total("requests_total") == sum(requests.values())
    assert read.total("request_seconds_count") == sum(requests.values())
    assert read.of("mails_total", outcome="verdict") == 3 + 2 + 2
    assert read.of("mails_total", outcome="not_a_mail") == 1
    verdict = {"model": "twin", "version": "3", "label": "ham", "unsure": "false"}
    assert read.of("verdicts_total", **verdict) == 7
    for stage in ("parse", "tokenize", "queue", "forward"):
        assert read.of("stage_seconds_count", stage=stage) == 7
    assert read.of("stage_seconds_sum", stage="queue") == pytest.approx(7 * 0.002)
    assert read.of("stage_seconds_bucket", stage="queue", le="0.001") == 0
    assert read.of("stage_seconds_bucket", stage="queue", le="0.0025") == 7
    for code in ("malformed_json", "unknown_model", "not_explainable"):
        assert read.of("refusals_total", code=code) == 1
    assert read.of("feedback_total") == 1
    assert read.of("received_bytes_total") > 3 * len(MAIL)  # type: ignore[operator]
    assert read.of("requests_in_flight") == 0
    assert read.of("ready") == 1
    info = {"model": "twin", "version": "3", "runtime": "torch", "precision": "fp32"}
    assert read.of("model_info", **info) == 1


def test_what_a_caller_makes_up_is_in_no_label(tmp_path: Path) -> None:
    shown = token_in(tmp_path / "tokens.yaml", scopes=("classify", "metrics"), rate="3/h")

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in (
            f"/{WORD}",
            f"/v1/classify/{WORD}",
            f"/v2/models/{WORD}/ready",
            "/v1/classify",
        ):
            for number in range(3):
                headers = {"Authorization": WORD, "X-Request-ID": f"{WORD}{number}"}
                await client.request(f"{WORD}{number}", f"{path}?{WORD}", headers=headers)
        mail = json.dumps({"subject": WORD, "from": WORD, "body": WORD, WORD: WORD}).encode()
        for _ in range(5):
            await client.post("/v1/classify", content=mail, headers=JSON | shown)

    access = Access(tmp_path / "tokens.yaml", public=["metrics"])
    read, text = after(scenario, access=access)
    assert WORD not in text
    unknown = {"method": "OTHER", "status": "401"}
    assert read.of("requests_total", route="unmatched", **unknown) == 6
    assert read.of("requests_total", route="/v2/models/{name}/ready", **unknown) == 3
    assert read.of("refusals_total", code="invalid_fields") == 3
    assert read.of("rate_limited_total", token="gateway") == 2


def test_one_who_goes_away_is_counted() -> None:
    twin = Twin()
    twin.go.clear()

    async def scenario(client: httpx.AsyncClient) -> None:
        asked = asyncio.ensure_future(client.post("/v1/classify", json={"body": "Hi"}))
        while not twin.texts:
            await asyncio.sleep(0)
        flight = await client.get("/metrics")
        assert Read(flight.text).of("requests_in_flight") == 1
        asked.cancel()
        await asyncio.wait([asked])

    read, _ = after(scenario, twin)
    gone = {"route": "/v1/classify", "method": "POST", "status": "499"}
    assert read.of("requests_total", **gone) == 1
    assert read.of("requests_in_flight") == 0


def test_batches_are_counted_with_their_padding_and_their_faults() -> None:
    metrics, classifier = Metrics(), Classifier()

    async def scenario() -> None:
        batcher = Batcher(classifier, threads=1, lanes=1, batch_tokens=100, max_queued=9,
                          metrics=metrics)  # fmt: skip
        classifier.go.clear()
        first = asyncio.ensure_future(batcher.classify("x"))
        while not classifier.batches[1:]:
            await asyncio.sleep(0.001)
        rest = [asyncio.ensure_future(batcher.classify(text)) for text in ("ab", "bad", "abcd")]
        while batcher.queued < 3 or batcher._tokenizing:
            await asyncio.sleep(0.001)
        classifier.go.set()
        await asyncio.gather(first, *rest, return_exceptions=True)
        batcher.close()

    asyncio.run(scenario())
    read = Read(metrics.text())
    assert read.of("batch_mails_count") == 2
    assert read.of("batch_mails_sum") == 1 + 3
    assert read.of("batch_tokens_sum") == 1 + 3 * 4
    assert read.of("tokens_total") == 1 + 2 + 3 + 4
    assert read.of("padding_tokens_total") == 3
    assert read.of("batch_padding_ratio_sum") == pytest.approx(3 / 12)
    assert read.of("mail_tokens_bucket", le="16.0") == 4
    # All three, the half with "bad" (of two or one), and "bad" alone.
    assert read.of("batches_failed_total") in (2, 3)
    assert read.of("batches_halved_total") == read.of("batches_failed_total") - 1  # type: ignore[operator]


def test_a_lineup_tells_of_its_alias_and_challenger() -> None:
    from serving.challenger import ChallengerConfig

    async def scenario(client: httpx.AsyncClient) -> None:
        lineup.replace(Closable("2"))
        lineup.challenge(Closable("9"), ChallengerConfig(share=1.0, mode="canary"))
        lineup.fault = f"the registry is down: {WORD}"
        await client.post("/v1/classify", json={"body": "Hi"})
        for _ in range(20):
            await asyncio.sleep(0)

    lineup = Lineup(Closable("1"), follows="twin@champion")
    read, text = after(scenario, lineup)
    assert read.of("rollovers_total") == 1
    assert read.of("alias_fault") == 1
    assert WORD not in text
    challenger = {"model": "twin", "version": "9", "mode": "canary"}
    assert read.of("challenger_on", **challenger) == 1
    assert read.of("challenger_requests_total", **challenger) == 1
    assert read.of("challenger_compared_total", **challenger) == 1
    assert read.of("challenger_seconds_total", side="champion", **challenger) == 0.001
    assert read.of("verdicts_total", model="twin", version="9", label="ham", unsure="false") == 1


class Two:
    """A board of two replicas."""

    def __init__(self) -> None:
        self.metrics = [Metrics("a"), Metrics('b"\n\u2028')]

    async def all(self, *, metrics: bool = True) -> list[Snapshot]:
        return [Snapshot(each.replica, 0, each.text()) for each in self.metrics]


def test_all_replicas_stand_in_one_scrape_each_family_once() -> None:
    board = Two()
    board.metrics[1].feedback()

    async def scenario(client: httpx.AsyncClient) -> None:
        pass

    read, text = after(scenario, board=board)
    assert read.total("feedback_total") == 1
    assert read.of("feedback_total", replica='b"\n\u2028') == 1
    assert read.of("feedback_total", replica="a") == 0
    assert text.count("# TYPE mailray_feedback_total counter\n") == 1


@pytest.mark.parametrize(
    "accept", ['text/plain;version="1.0.0"', "text/plain;version=x;escaping=quokka", "*/*", "\xff"]
)
def test_whatever_is_accepted_there_is_an_answer(accept: str) -> None:
    async def scenario() -> httpx.Response:
        async with client_of(app_of()) as client:
            return await client.get("/metrics", headers={b"Accept": accept.encode("latin-1")})

    answer = asyncio.run(scenario())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_openmetrics_is_told_to_whom_it_pleases() -> None:
    async def scenario() -> httpx.Response:
        async with client_of(app_of()) as client:
            await client.post("/v1/classify", json={"body": "Hi"})
            wanted = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
            answer: httpx.Response = await client.get("/metrics", headers=wanted)
            return answer

    answer = asyncio.run(scenario())
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    samples = {
        (sample.name, sample.labels.get("route")): sample.value
        for family in openmetrics_families(answer.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert samples["mailray_requests_total", "/v1/classify"] == 1


def test_texts_that_have_other_families_are_merged() -> None:
    one = "# HELP a A.\n# TYPE a gauge\na 1.0\n"
    other = "# HELP b_total B.\n# TYPE b_total counter\nb_total 2.0\n"
    both = merged([one, other, one])
    assert both == one + "a 1.0\n" + other
    assert merged([other], openmetrics=True) == (
        "# HELP b B.\n# TYPE b counter\nb_total 2.0\n# EOF\n"
    )


def test_a_fault_in_what_watches_a_request_harms_no_answer() -> None:
    def broken(_: Any) -> None:
        raise ApiError("internal", "broken")

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/classify", json={"body": "Hi"})).status_code == 200

    read, _ = after(scenario, observers=(broken,))
    assert read.total("requests_total") == 1
