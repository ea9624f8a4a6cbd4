"""Feedback: kept once it is answered, once however often it is sent, only what was agreed to."""

import asyncio
import base64
import json
import sqlite3
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from serving.access import Access
from serving.calls import Feedback, feedback_call
from serving.feedback.keeper import Keeper
from serving.feedback.record import Base, Record, key
from serving.feedback.store import MIGRATIONS, ConflictError, Store, StoreError, feedback_url
from tests.serving.twin import app_of, client_of, token_in
from training.readers.columns import check_columns, mail_row
from training.readers.piece import Piece
from training.schema import ConfigError

SAID = {"request_id": "r-1", "label": "spam", "verdict": {"label": "ham", "probability": 0.75}}
FIELDS = {"subject": "Prize", "from": "Ann <a@example.org>", "body": "Claim it"}
ENCODED = {"raw_base64": base64.b64encode(b"Subject: Prize\n\nClaim it").decode()}
AGREED = {"store_text": True, "train": True}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kept' / 'feedback.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(url: str) -> Iterator[Send]:
    keeper = Keeper(Store(url))
    app = app_of(keeper=keeper)

    def one(body: Any, **request: Any) -> httpx.Response:
        async def scenario() -> httpx.Response:
            async with client_of(app) as client:
                return await client.post("/v1/feedback", json=body, **request)

        return asyncio.run(scenario())

    yield one
    keeper.close()


def record(**given: Any) -> Record:
    fields: dict[str, Any] = dict.fromkeys(Record.__table__.columns.keys())
    request = given.pop("request_id", "r-1")
    fields |= {"id": uuid.uuid4().hex, "created": 1, "token": "", "label": "spam"}
    fields |= {"store_text": True, "train": True, "request_id": request, "body": "Hi"}
    return Record(**fields | {"key": key(request, None)} | given)


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
    send: Send, url: str, store: Store, consent: dict[str, bool], mail: dict[str, str]
) -> None:
    answer = send(SAID | {"consent": consent, "mail": mail})
    assert answer.json()["text_kept"] is False
    [row] = store.records()
    assert row.mail() is None
    store.close()
    for file in Path(sa.make_url(url).database or "").parent.iterdir():
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


def test_a_token_erases_its_own_feedback_and_no_other(url: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    mine, theirs = token_in(file, "mine"), token_in(file, "theirs")
    keeper = Keeper(Store(url))

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
def test_an_id_that_is_none_is_404(url: str, path: str) -> None:
    keeper = Keeper(Store(url))

    async def scenario() -> int:
        async with client_of(app_of(keeper=keeper)) as client:
            return int((await client.delete(f"/v1/feedback/{path}")).status_code)

    assert asyncio.run(scenario()) == 404
    keeper.close()


def test_what_is_erased_is_not_in_the_files_any_more(store: Store, url: str) -> None:
    marked = record(body="quokka " * 1000)
    id, _ = store.add(marked)
    store.add(record(request_id="r-2", body="stays"))
    folder = Path(sa.make_url(url).database or "").parent
    assert any(b"quokka" in file.read_bytes() for file in folder.iterdir())
    assert store.erase(id)
    assert not any(b"quokka" in file.read_bytes() for file in folder.iterdir())
    assert [row.body for row in store.records()] == ["stays"]


def test_the_file_is_its_owners_alone_and_flushed_at_each_commit(store: Store, url: str) -> None:
    store.add(record())
    folder = Path(sa.make_url(url).database or "").parent
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    with store._engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "secure_delete")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


def test_old_feedback_is_erased_by_the_day(store: Store, url: str) -> None:
    now = time.time() * 1000
    for days in (0, 9, 11, 400):
        store.add(record(request_id=str(days), created=int(now - days * 86_400_000)))
    assert store.expire() == 0
    assert store.expire(10) == 2
    assert {row.request_id for row in store.records()} == {"0", "9"}
    keeper = Keeper(Store(url, days=5))  # a server does so by itself
    deadline = time.monotonic() + 20
    while store.count() > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    keeper.close()
    assert store.count() == 1


def test_what_was_kept_before_messages_were_bytes_is_kept(url: str) -> None:
    place = sa.make_url(url).database or ""
    Path(place).parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO feedback (id, created, token, key, label, store_text, train, raw) "
            "VALUES ('a', 1, '', 'k', 'spam', 1, 1, 'Subject: Pr\u00eds')"
        )
    engine.dispose()
    store = Store(url)
    assert [(row.id, row.raw) for row in store.records()] == [("a", "Subject: Pr\u00eds".encode())]
    store.close()


def test_the_migrations_make_what_the_records_say(store: Store) -> None:
    store.prepare()
    with store._engine.connect() as connection:
        options = {"version_table": "feedback_version"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == "0002"


def test_many_stores_of_one_file_wait_for_each_other(url: str) -> None:
    """As replicas do that start at once and write at once."""
    faults: list[Exception] = []

    def work(number: int) -> None:
        store = Store(url)
        try:
            for turn in range(15):
                store.add(record(request_id=f"{number}-{turn}"))
                store.add(record(request_id=f"all-{turn}"))
        except Exception as error:
            faults.append(error)
        store.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    store = Store(url)
    assert store.count() == 6 * 15 + 15
    store.close()


def test_a_repeated_record_that_differs_is_a_conflict(store: Store) -> None:
    id, new = store.add(record())
    assert new
    assert store.add(record()) == (id, False)
    with pytest.raises(ConflictError, match=id):
        store.add(record(train=False))
    assert store.add(record(token="other"))[1]


def test_a_database_that_is_down_is_503_and_the_classifier_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "feedback.db"
    place.mkdir()  # no file can be there
    keeper = Keeper(Store(f"sqlite:///{place}"))
    app = app_of(keeper=keeper)
    mailed = SAID | {"consent": AGREED, "mail": {"body": "quokka"}}

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with client_of(app) as client:
            refused = await client.post("/v1/feedback", json=mailed)
            return refused, await client.post("/v1/classify", json={"body": "Hi"})

    refused, answered = asyncio.run(ask())
    assert (refused.status_code, answered.status_code) == (503, 200)
    assert refused.json()["error"]["code"] == "feedback_unavailable"
    assert "\n" not in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "5"
    assert "quokka" not in refused.text + caplog.text
    assert "SQLITE_CANTOPEN" in caplog.text or "OperationalError" in caplog.text
    place.rmdir()  # it is back
    refused, _ = asyncio.run(ask())
    assert refused.status_code == 201
    keeper.close()


def test_a_lock_that_does_not_end_is_503_and_holds_nobody_else_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.feedback.store._BUSY_S", 2.0)
    store = Store(url)
    store.prepare()
    keeper = Keeper(store)
    blocker = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    async def scenario() -> list[int]:
        async with client_of(app_of(keeper=keeper)) as client:
            calls = [client.post("/v1/feedback", json=SAID | {"request_id": str(n)}) for n in "ab"]
            waiting = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0.01)
            answered = await client.post("/v1/classify", json={"body": "Hi"})
            assert not any(call.done() for call in waiting)
            return [answered.status_code] + [(await call).status_code for call in waiting]

    assert asyncio.run(scenario()) == [200, 503, 503]
    blocker.rollback()
    blocker.close()
    keeper.close()


def test_no_fault_of_the_database_tells_what_it_was_about(store: Store) -> None:
    store.prepare()
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE feedback")
    marked = record(body="quokka")
    with pytest.raises(StoreError) as error:
        store.add(marked)
    shown = "".join(traceback.format_exception(error.value))
    assert "quokka" not in shown
    assert "INSERT" not in shown


@pytest.mark.parametrize(
    "url", ["", "mysql://u:quokka@h/d", "quokka", "sqlite://", "sqlite:///:memory:", "http://[q"]
)
def test_a_wrong_url_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"feedback: .*sqlite:////") as error:
        Store(url)
    assert "quokka" not in str(error.value)


def test_the_store_is_named_by_config_then_environment_then_home(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert feedback_url(None) == f"sqlite:///{home / 'feedback.db'}"
    monkeypatch.setenv("MAILRAY_FEEDBACK_URL", "postgresql://u:quokka@db/feedback")
    assert feedback_url(None) == "postgresql://u:quokka@db/feedback"
    assert feedback_url("none") == "none"
    assert Store(feedback_url(None)).place == "postgresql+psycopg://u:***@db/feedback"


def test_a_server_that_takes_no_feedback_has_no_such_path() -> None:
    async def scenario() -> int:
        async with client_of(app_of()) as client:
            return int((await client.post("/v1/feedback", json=SAID)).status_code)

    assert asyncio.run(scenario()) == 404
    assert "/v1/feedback" not in app_of().openapi()["paths"]


def test_openapi_declares_the_body_and_every_refusal(url: str) -> None:
    keeper = Keeper(Store(url))
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


def test_a_mail_in_the_columns_of_a_source_is_the_same_mail(store: Store) -> None:
    store.add(record(body=None, raw=b"Subject: Prize\n\nClaim it", request_id="raw"))
    store.add(record(body=None, raw=b"Subject: Prize\n\nClaim \xe9t", request_id="bytes"))
    store.add(record(subject="Prize", sender="a@example.org", body="Claim", request_id="parts"))
    piece = Piece.__new__(Piece)
    object.__setattr__(piece, "split", None)
    object.__setattr__(piece, "allowed", ("ham", "spam"))
    object.__setattr__(piece, "multi", False)
    for kept in store.records():
        values = {"id": kept.id, "label": kept.label, **(kept.mail() or {})}
        check_columns("feedback", list(values), labelled=True)
        row = mail_row(values, "x", piece)
        assert "error" not in row
        assert (row["label"], row["id"]) == ("spam", kept.id)
        assert row.get("raw") == kept.raw


def test_a_store_that_hangs_costs_the_classifier_no_room(url: str) -> None:
    class Hanging(Keeper):
        async def add(self, record: Record) -> tuple[str, bool]:
            await asyncio.sleep(60)
            raise AssertionError

    keeper = Hanging(Store(url))
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
