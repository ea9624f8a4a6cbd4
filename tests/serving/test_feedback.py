"""Feedback: kept once it is answered, once however often it is sent, only what was agreed to."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from serving.access import Access
from serving.calls import Feedback, feedback_call
from serving.feedback.keeper import Keeper
from serving.feedback.record import Record
from serving.feedback.store import Store
from tests.serving.records import AGREED, SAID
from tests.serving.twin import app_of, client_of, token_in

FIELDS = {"subject": "Prize", "from": "Ann <a@example.org>", "body": "Claim it"}
ENCODED = {"raw_base64": base64.b64encode(b"Subject: Prize\n\nClaim it").decode()}


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(store_url: str) -> Iterator[Send]:
    keeper = Keeper(Store(store_url))
    app = app_of(keeper=keeper)

    def one(body: Any, **request: Any) -> httpx.Response:
        async def scenario() -> httpx.Response:
            async with client_of(app) as client:
                return await client.post("/v1/feedback", json=body, **request)

        return asyncio.run(scenario())

    yield one
    keeper.close()


def test_feedback_is_there_once_it_is_answered(send: Send, store: Store) -> None:
    body = SAID | {"model": "twin", "version": "3", "consent": AGREED, "mail": FIELDS}
    answer = send(body)
    assert answer.status_code == 201
    kept = answer.json()
    assert kept == {"id": kept["id"], "new": True, "text_kept": True}
    [row] = store.records()
    assert (row.id, row.request_id, row.label) == (kept["id"], "r-1", "spam")
    assert (row.given, row.probability, row.model, row.version) == ("ham", 0.75, "twin", "3")
    assert row.mail() == FIELDS
    assert abs(row.created / 1000 - time.time()) < 60


@pytest.mark.parametrize(
    "raw", [b"Subject: Pr\xc3\xads\n\nClaim\0it", b"Subject: Pr\xeds\n\nClaim"]
)
def test_a_whole_message_is_kept_byte_for_byte(send: Send, store: Store, raw: bytes) -> None:
    said = feedback_call(Feedback("spam", request_id="r", mail=raw, store_text=True)).json
    assert send(said).json()["text_kept"] is True
    [row] = store.records()
    assert row.raw == raw


def test_a_message_that_is_not_base64_is_refused_with_or_without_consent(send: Send) -> None:
    for consent in ({}, AGREED):
        answer = send(SAID | {"consent": consent, "mail": {"raw_base64": "Cl*im"}})
        assert answer.status_code == 422
        assert answer.json()["error"]["message"] == "mail.raw_base64: is not base64"


@pytest.mark.parametrize("consent", [{}, {"store_text": False}, {"train": True}])
@pytest.mark.parametrize("mail", [FIELDS, {"raw": "Subject: Prize\n\nClaim it"}, ENCODED])
def test_a_mail_is_kept_with_consent_only(
    send: Send, store_url: str, store: Store, consent: dict[str, bool], mail: dict[str, str]
) -> None:
    answer = send(SAID | {"consent": consent, "mail": mail})
    assert answer.json()["text_kept"] is False
    [row] = store.records()
    assert row.mail() is None
    store.close()
    for file in Path(sa.make_url(store_url).database or "").parent.iterdir():
        assert b"Claim" not in file.read_bytes()


def test_the_same_again_is_the_same_and_another_label_is_refused(send: Send, store: Store) -> None:
    first, again = send(SAID), send(SAID)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {"id": first.json()["id"], "new": False, "text_kept": False}
    answer = send(SAID | {"label": "ham"})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "conflict"
    assert first.json()["id"] in answer.json()["error"]["message"]
    assert store.count() == 1
    assert send(SAID | {"request_id": "r-2"}).status_code == 201
    by_mail = {"message_id": "r-1", "label": "spam"}  # a message's id, not the request's
    assert send(by_mail).status_code == 201
    assert send(by_mail).status_code == 200


def test_half_characters_and_nuls_are_dropped(send: Send, store: Store) -> None:
    mail = {"subject": "a\0b", "body": "c\ud800d"}
    body = json.dumps(SAID | {"consent": AGREED, "mail": mail, "model": "t\0"})
    send(None, content=body, headers={"Content-Type": "application/json"})
    [row] = store.records()
    assert row.mail() == {"subject": "ab", "from": "", "body": "cd"}
    assert row.model == "t"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"label": "spam"}, "request_id or message_id is needed"),
        ({"request_id": "r"}, "label: "),
        (SAID | {"mail": {"raw_base64": 1}}, "mail.raw_base64: input should be a valid string"),
        (SAID | {"mail": {"topic": "x"}}, "'mail.topic': no such field"),
        ({"request_id": "r", "label": "junk"}, "one of ham, spam is needed"),
        ({"request_id": "r", "label": []}, "label: "),
        ({"request_id": "r", "label": ["ham", "spam"]}, "label: one of"),
        ({"request_id": "", "label": "ham"}, "request_id: "),
        ({"request_id": "r" * 129, "label": "ham"}, "request_id: "),
        ({"message_id": "m" * 999, "label": "ham"}, "message_id: "),
        (SAID | {"consent": {"train": 1}}, "consent.train: "),
        (SAID | {"consent": True}, "consent: "),
        (SAID | {"verdict": {"label": "ham", "probability": 1.5}}, "verdict.probability: "),
        (SAID | {"mail": {}}, "must not be blank"),
        (SAID | {"mail": "Subject: a"}, "mail: must be an object"),
        (SAID | {"who": "me"}, "'who': no such field"),
        ([], "object"),
    ],
)
def test_wrong_feedback_is_422_and_named(send: Send, store: Store, body: Any, words: str) -> None:
    answer = send(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_fields")
    assert words in answer.json()["error"]["message"]
    assert store.count() == 0


def test_another_content_type_is_415_and_a_large_body_413(send: Send) -> None:
    assert send(None, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert send(SAID | {"mail": {"body": "x" * 200_000}}).status_code == 413


def test_a_token_erases_its_own_feedback_and_no_other(store_url: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    mine, theirs = token_in(file, "mine"), token_in(file, "theirs")
    keeper = Keeper(Store(store_url))

    async def scenario() -> None:
        async with client_of(app_of(access=Access(file), keeper=keeper)) as client:
            made = await client.post("/v1/feedback", json=SAID, headers=mine)
            other = await client.post("/v1/feedback", json=SAID, headers=theirs)
            assert made.status_code == other.status_code == 201  # the same id of two callers
            path = f"/v1/feedback/{made.json()['id']}"
            assert (await client.delete(path)).status_code == 401
            refused = await client.delete(path, headers=theirs)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
            gone = await client.delete(path, headers=mine)
            assert (gone.status_code, gone.content) == (204, b"")
            assert (await client.delete(path, headers=mine)).status_code == 404
            assert (await client.post("/v1/feedback", json=SAID, headers=mine)).status_code == 201

    asyncio.run(scenario())
    keeper.close()


@pytest.mark.parametrize("path", ["x", "a%00b", "..%2F..", "%F0%9F%98%80" * 40, "x" * 3000])
def test_an_id_that_is_none_is_404(store_url: str, path: str) -> None:
    keeper = Keeper(Store(store_url))

    async def scenario() -> int:
        async with client_of(app_of(keeper=keeper)) as client:
            return int((await client.delete(f"/v1/feedback/{path}")).status_code)

    assert asyncio.run(scenario()) == 404
    keeper.close()


def test_a_server_that_takes_no_feedback_has_no_such_path() -> None:
    async def scenario() -> int:
        async with client_of(app_of()) as client:
            return int((await client.post("/v1/feedback", json=SAID)).status_code)

    assert asyncio.run(scenario()) == 404
    assert "/v1/feedback" not in app_of().openapi()["paths"]


def test_openapi_declares_the_body_and_every_refusal(store_url: str) -> None:
    keeper = Keeper(Store(store_url))
    document = app_of(keeper=keeper).openapi()
    keeper.close()
    call = document["paths"]["/v1/feedback"]["post"]
    schema = call["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]["consent"]["properties"]) == {"store_text", "train"}
    assert "$defs" not in json.dumps(schema)
    refused = {"400", "401", "403", "408", "409", "413", "415", "422", "429", "431", "500", "503"}
    assert set(call["responses"]) == refused | {"200", "201"}
    erase = document["paths"]["/v1/feedback/{id}"]["delete"]
    assert {"204", "404", "503"} <= set(erase["responses"])


def test_a_store_that_hangs_costs_the_classifier_no_room(store_url: str) -> None:
    class Hanging(Keeper):
        async def add(self, record: Record) -> tuple[str, bool]:
            await asyncio.sleep(60)
            raise AssertionError

    keeper = Hanging(Store(store_url))
    large = {"message_id": "<a@example.org>", "label": "spam", "mail": {"body": "x" * 900}}

    async def scenario() -> tuple[int, int]:
        async with client_of(app_of(keeper=keeper, max_body_bytes=1_000)) as client:
            held = [
                asyncio.ensure_future(client.post("/v1/feedback", json=large)) for _ in range(4)
            ]
            await asyncio.sleep(0.1)
            fifth = await client.post("/v1/feedback", json=large)
            verdict = await client.post("/v1/classify", json={"body": "x" * 900})
            for each in held:
                each.cancel()
            return fifth.status_code, verdict.status_code

    assert asyncio.run(scenario()) == (429, 200)
    keeper.close()
