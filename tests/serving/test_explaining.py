"""POST /v1/explain, and the thread behind it: bounded, and refused in the one shape."""

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import httpx
import pytest

from serving.api import build_api
from serving.attribution import NotExplainableError, OutOfTimeError
from serving.classifier import ModelInfo
from serving.errors import ApiError
from serving.explaining import Explaining
from serving.explanation import Explanation, Place, Span
from training.mail import Mail

RFC822 = {"Content-Type": "message/rfc822"}
RAW = b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n"
FIELDS = {"subject": "Lunch", "from": "Ann <ann@example.org>", "body": "At noon?"}
TEXT = "subject: Lunch\nfrom: Ann <ann@example.org>\n\nAt noon?"


def told(text: str, label: str | None) -> Explanation:
    spans = (
        Span("subject", 0, 7, "subject", 9.0, True, None),
        Span("subject", 9, 14, "Lunch", -2.0, False, Place("subject", 0, 5)),
        Span("body", 47, 51, "noon", 1.0, False, None),
    )
    return Explanation(
        label or "spam", 0.25, -1.1, 1.0, 0.0, True, 0.01, 8, 0.1, 0.0, text, spans, (), "twin", "3"
    )


class Explainer:
    """As that of serving.explanation, without a model."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.fault: Exception | None = None
        self.asked: list[tuple[str, Mail | None, float]] = []
        self.niceness = 0

    def explain(
        self, text: str, *, mail: Mail | None, label: str | None, seconds: float
    ) -> Explanation:
        self.asked.append((text, mail, seconds))
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert self.go.wait(60)
        if self.fault:
            raise self.fault
        return told(text, label)


class Engine:
    """Explains; and never classifies."""

    model = ModelInfo("twin", "3", ("ham", "spam"), False, 1, (), 64, "fp32")
    ready = True

    def __init__(self, explainer: Explainer, limit: int = 2) -> None:
        self.explaining = Explaining(
            lambda: explainer,  # type: ignore[arg-type,return-value]
            threads=1,
            seconds=5.0,
            limit=limit,
        )
        self.explain = self.explaining.explain

    async def classify(self, text: str, *, deadline: float | None = None) -> Any:
        raise NotImplementedError


@pytest.fixture
def explainer() -> Explainer:
    return Explainer()


def client_of(engine: Any) -> httpx.AsyncClient:
    app = build_api(engine, max_in_flight=8, max_body_bytes=100_000)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://mailray")


def ask(engine: Any, path: str = "/v1/explain", **request: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        async with client_of(engine) as client:
            return await client.post(path, **request)

    return asyncio.run(one())


def code(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    return response.status_code, body["error"]["code"]


def test_an_explanation_has_every_span_and_the_heaviest_of_the_senders_own(
    explainer: Explainer,
) -> None:
    response = ask(Engine(explainer), json=FIELDS, headers={"X-Request-ID": "r-1"})
    assert response.status_code == 200
    body = response.json()
    assert [span["text"] for span in body["spans"]] == ["subject", "Lunch", "noon"]
    assert [span["text"] for span in body["top"]] == ["Lunch", "noon"]
    assert body["top"][0]["field"] == {"name": "subject", "start": 0, "end": 5}
    assert body["top"][1]["field"] is None
    assert (body["label"], body["text"], body["request_id"]) == ("spam", TEXT, "r-1")


def test_the_fields_that_were_sent_are_known_and_a_messages_are_not(explainer: Explainer) -> None:
    engine = Engine(explainer)
    half = b'{"subject": "Lunch", "from": "Ann <ann@example.org>", "body": "At \\ud800noon?"}'
    pair = (
        b'{"subject": "Lunch", "from": "Ann <ann@example.org>", "body": "At noon? \\ud83d\\udc4b"}'
    )
    for body in (json.dumps(FIELDS).encode(), half, pair):
        ask(engine, content=body, headers={"Content-Type": "application/json"})
    ask(engine, content=RAW, headers=RFC822)
    ask(engine, json={"raw": RAW.decode()})
    fields, halved, paired, message, raw = explainer.asked
    assert fields[:2] == (TEXT, Mail("Lunch", "Ann <ann@example.org>", "At noon?"))
    assert halved[:2] == (TEXT, None)  # its offsets would not be the sender's
    assert paired[1] is not None
    assert message[:2] == raw[:2] == (TEXT, None)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("label=bulk", "label: one of ham, spam, got 'bulk'"),
        ("label=", "label: one of"),
        ("label=%F0%9F%91%8B", "label: one of"),
        ("top=0", "top: 1 to"),
        ("top=-1", "top: 1 to"),
        ("top=1e3", "top: 1 to"),
        ("top=99999999999999999999", "top: 1 to"),
        ("top=\u0661", "top: 1 to"),
    ],
)
def test_a_wrong_question_is_422(explainer: Explainer, query: str, words: str) -> None:
    response = ask(Engine(explainer), f"/v1/explain?{query}", json=FIELDS)
    assert code(response) == (422, "invalid_fields")
    assert words in response.json()["error"]["message"]
    assert not explainer.asked


def test_label_and_top_are_as_asked_for(explainer: Explainer) -> None:
    body = ask(Engine(explainer), "/v1/explain?label=ham&top=1", json=FIELDS).json()
    assert body["label"] == "ham"
    assert len(body["top"]) == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"", "headers": RFC822}, 400),
        ({"content": b"x" * 200_000, "headers": RFC822}, 413),
        ({"content": RAW, "headers": {"Content-Type": "text/html"}}, 415),
        ({"json": {"bodi": "x"}}, 422),
        ({"json": FIELDS, "headers": {"X-Request-Timeout-Ms": "soon"}}, 400),
    ],
)
def test_what_classify_refuses_is_refused_alike(
    explainer: Explainer, request_: dict[str, Any], status: int
) -> None:
    assert ask(Engine(explainer), **request_).status_code == status
    assert not explainer.asked


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (OutOfTimeError(), (504, "deadline_exceeded")),
        (NotExplainableError("no word embeddings"), (501, "not_explainable")),
        (RuntimeError("a fault"), (500, "internal")),
    ],
)
def test_each_fault_has_its_status(
    explainer: Explainer, fault: Exception, answer: tuple[int, str]
) -> None:
    explainer.fault = fault
    assert code(ask(Engine(explainer), json=FIELDS)) == answer


def test_an_engine_without_reasons_is_501(explainer: Explainer) -> None:
    class Mute:
        model, ready, classify = Engine.model, True, Engine.classify

    assert code(ask(Mute(), json=FIELDS)) == (501, "not_explainable")


def test_the_time_is_the_servers_or_less_if_the_request_says_so(explainer: Explainer) -> None:
    engine = Engine(explainer)
    ask(engine, json=FIELDS)
    ask(engine, json=FIELDS, headers={"X-Request-Timeout-Ms": "2000"})
    assert explainer.asked[0][2] == 5.0
    assert 0 < explainer.asked[1][2] <= 2.0


def test_past_its_deadline_a_request_is_504_and_keeps_its_place_until_the_thread_is_done(
    explainer: Explainer,
) -> None:
    engine = Engine(explainer, limit=1)
    explainer.go.clear()
    soon = {"X-Request-Timeout-Ms": "100"}

    async def scenario() -> None:
        async with client_of(engine) as client:
            late = await client.post("/v1/explain", json=FIELDS, headers=soon)
            assert code(late) == (504, "deadline_exceeded")
            refused = await client.post("/v1/explain", json=FIELDS)
            assert code(refused) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) == 5
            explainer.go.set()
            for _ in range(200):
                answer = await client.post("/v1/explain", json=FIELDS)
                if answer.status_code == 200:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("its place was never free again")

    asyncio.run(scenario())


def test_one_that_waits_and_is_given_up_is_never_explained(explainer: Explainer) -> None:
    engine = Engine(explainer)
    explainer.go.clear()
    soon = {"X-Request-Timeout-Ms": "100"}

    async def scenario() -> None:
        async with client_of(engine) as client:
            first = asyncio.create_task(client.post("/v1/explain", json=FIELDS))
            while not explainer.asked:
                await asyncio.sleep(0.01)
            assert code(await client.post("/v1/explain", json=FIELDS, headers=soon))[0] == 504
            explainer.go.set()
            assert (await first).status_code == 200
            assert (await client.post("/v1/explain", json=FIELDS)).status_code == 200

    asyncio.run(scenario())
    assert len(explainer.asked) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux alone")
def test_it_is_done_in_a_thread_that_yields_to_all_others(explainer: Explainer) -> None:
    ask(Engine(explainer), json=FIELDS)
    assert explainer.niceness == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19


def test_once_closed_it_refuses(explainer: Explainer) -> None:
    async def scenario() -> None:
        engine = Engine(explainer)
        explainer.go.clear()
        deadline = time.monotonic() + 60
        jobs = [
            asyncio.create_task(engine.explain(TEXT, mail=None, label=None, deadline=deadline))
            for _ in range(2)
        ]
        while not explainer.asked:
            await asyncio.sleep(0.01)
        engine.explaining.close()
        explainer.go.set()
        running, waiting = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(running, Explanation)
        assert isinstance(waiting, ApiError)
        assert waiting.code == "not_ready"
        with pytest.raises(ApiError, match="shut down"):
            await engine.explain(TEXT, mail=None, label=None, deadline=deadline)

    asyncio.run(scenario())


def test_openapi_has_the_questions_and_an_example(explainer: Explainer) -> None:
    document = build_api(Engine(explainer), max_in_flight=1, max_body_bytes=1).openapi()
    call = document["paths"]["/v1/explain"]["post"]
    assert {item["name"] for item in call["parameters"] if item["in"] == "query"} == {
        "label",
        "top",
    }
    assert {"200", "400", "422", "429", "501", "504"} <= set(call["responses"])
    assert document["components"]["schemas"]["Explained"]["examples"]
