"""The store of feedback: what its files keep and lose, and what its faults say and hold up."""

import asyncio
import sqlite3
import time
import traceback
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from serving.feedback.keeper import Keeper
from serving.feedback.record import Base
from serving.feedback.store import MIGRATIONS, ConflictError, Store, StoreError, feedback_url
from tests.serving.records import AGREED, SAID, crowd, record
from tests.serving.twin import app_of, client_of
from training.readers.columns import check_columns, mail_row
from training.readers.piece import Piece
from training.schema import ConfigError


def test_what_is_erased_is_not_in_the_files_any_more(store: Store, store_url: str) -> None:
    marked = record(body="quokka " * 1000)
    id, _ = store.add(marked)
    store.add(record(request_id="r-2", body="stays"))
    folder = Path(sa.make_url(store_url).database or "").parent
    assert any(b"quokka" in file.read_bytes() for file in folder.iterdir())
    assert store.erase(id)
    assert not any(b"quokka" in file.read_bytes() for file in folder.iterdir())
    assert [row.body for row in store.records()] == ["stays"]


def test_the_file_is_its_owners_alone_and_flushed_at_each_commit(
    store: Store, store_url: str
) -> None:
    store.add(record())
    folder = Path(sa.make_url(store_url).database or "").parent
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    with store._engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "secure_delete")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


def test_old_feedback_is_erased_by_the_day(store: Store, store_url: str) -> None:
    now = time.time() * 1000
    for days in (0, 9, 11, 400):
        store.add(record(request_id=str(days), created=int(now - days * 86_400_000)))
    assert store.expire() == 0
    assert store.expire(10) == 2
    assert {row.request_id for row in store.records()} == {"0", "9"}
    keeper = Keeper(Store(store_url, days=5))  # a server does so by itself
    deadline = time.monotonic() + 20
    while store.count() > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    keeper.close()
    assert store.count() == 1


def test_what_was_kept_before_messages_were_bytes_is_kept(store_url: str) -> None:
    place = sa.make_url(store_url).database or ""
    Path(place).parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO feedback (id, created, token, key, label, store_text, train, raw) "
            "VALUES ('a', 1, '', 'k', 'spam', 1, 1, 'Subject: Pr\u00eds')"
        )
    engine.dispose()
    store = Store(store_url)
    assert [(row.id, row.raw) for row in store.records()] == [("a", "Subject: Pr\u00eds".encode())]
    store.close()


def test_the_migrations_make_what_the_records_say(store: Store) -> None:
    store.prepare()
    with store._engine.connect() as connection:
        options = {"version_table": "feedback_version"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == "0002"


def test_many_stores_of_one_file_wait_for_each_other(store_url: str) -> None:
    """As replicas do that start at once and write at once."""
    assert crowd(store_url, 15) == []
    store = Store(store_url)
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
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.feedback.store._BUSY_S", 2.0)
    store = Store(store_url)
    store.prepare()
    keeper = Keeper(store)
    blocker = sqlite3.connect(sa.make_url(store_url).database or "", isolation_level=None)
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
