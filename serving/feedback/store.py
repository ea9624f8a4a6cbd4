"""The store of feedback: an SQLite file, or PostgreSQL, through SQLAlchemy.

    store = Store("sqlite:////var/lib/mailray/feedback.db")
    id, new = store.add(Record(...))     # on disk when it returns
    store.erase(id)

What `add` has returned from survives the death of the process and of the machine: SQLite writes
ahead and flushes at each commit, PostgreSQL is told to. No error, log line or message has the text
of a mail.
"""

import datetime as dt
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from serving.feedback.record import Record
from training.home import Home
from training.schema import ConfigError

log = logging.getLogger(__name__)

THREADS: Final = 4
"""Calls that the store works on at once."""
_BUSY_S: Final = 5
_CONNECT_S: Final = 3
_LOCK: Final = 0x6D61696C  # any number, the same in every process
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_CHUNK: Final = 500
_MIGRATING: Final = threading.Lock()
"""Alembic keeps what it migrates in globals: one at a time in a process, of all stores."""


class StoreError(RuntimeError):
    """The database does not answer, or refuses; one line, without anything of a mail."""


class ConflictError(ValueError):
    """There is other feedback under the same id."""


def feedback_url(given: str | None) -> str:
    """What a config says, else the environment, else a file in MAILRAY_HOME."""
    file = Home.default().root / "feedback.db"
    return given or os.environ.get("MAILRAY_FEEDBACK_URL") or f"sqlite:///{file}"


class Store:
    """The table behind a URL. Any number of threads and processes may use one.

    Nothing is connected here: a database that is down when a server starts may come later.

    Raises:
        ConfigError: the URL is none of SQLite or PostgreSQL.
    """

    def __init__(self, url: str, *, days: int | None = None) -> None:
        self._days = days
        self._url = _checked(url)
        self._ready = False
        self._engine = _engine(self._url)

    @property
    def place(self) -> str:
        """Where it is, as people may read it: without a password."""
        return self._url.render_as_string(hide_password=True)

    def add(self, record: Record) -> tuple[str, bool]:
        """Keep one; its id once it is committed, and whether it is new.

        Raises:
            ConflictError: its token has said something else of the same mail.
            StoreError: it may not have been kept. To send it again is safe.
        """
        said, token, key = record.says(), record.token, record.key
        with self._transaction() as session:
            with suppress(IntegrityError):
                with session.begin_nested():
                    session.add(record)
                return record.id, True
            once = sa.select(Record).where(Record.token == token, Record.key == key)
            there = session.scalars(once).one_or_none()
            if there is None:  # erased in between
                raise StoreError("it was erased while it was sent again")
            if there.says() != said:
                raise ConflictError(there.id)
            return there.id, False

    def erase(self, id: str, token: str | None = None) -> bool:
        """Delete one, of a token if one is given; false where there is none."""
        chosen = sa.delete(Record).where(Record.id == id)
        if token is not None:
            chosen = chosen.where(Record.token == token)
        return self._delete(chosen) > 0

    def expire(self, days: int | None = None) -> int:
        """Delete what is older than `days`, or than the store's own limit; says how many."""
        limit = days if days is not None else self._days
        if limit is None:
            return 0
        oldest = dt.datetime.now(dt.UTC) - dt.timedelta(days=limit)
        return self._delete(sa.delete(Record).where(Record.created < oldest.timestamp() * 1000))

    def count(self) -> int:
        """How many there are."""
        with self._transaction(write=False) as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Record)) or 0

    def records(self, *, newest: int | None = None, train: bool = False) -> Iterator[Record]:
        """All of them, the oldest first, or the newest ones; `train`: those with consent to it."""
        chosen = sa.select(Record).order_by(Record.created, Record.id)
        if newest is not None:
            chosen = sa.select(Record).order_by(Record.created.desc(), Record.id).limit(newest)
        if train:
            chosen = chosen.where(Record.train)
        with self._transaction(write=False) as session:
            options = {"yield_per": _CHUNK}  # read on as they are used: mails can be large
            for record in session.scalars(chosen, execution_options=options):
                session.expunge(record)
                yield record

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def prepare(self) -> None:
        """Bring the tables up to date; processes that do so at once wait for each other."""
        with _MIGRATING:
            if self._ready:
                return
            with _told(), self._engine.execution_options(write=True).begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            self._ready = True

    def _delete(self, chosen: sa.Delete) -> int:
        with self._transaction() as session:
            result: Any = session.execute(chosen)
            gone = int(result.rowcount)
        if gone and self._url.get_backend_name() == "sqlite":
            # Until then the write-ahead log has what was erased. A reader can be in the way: the
            # next commits reuse the log then.
            with _told(), closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[Session]:
        self.prepare()
        engine = self._engine.execution_options(write=write)
        with _told(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session


@contextmanager
def _told() -> Iterator[None]:
    """Faults of the database as StoreError. Its own words may quote the row, so none are kept."""
    try:
        yield
    except SQLAlchemyError as error:
        cause: Any = getattr(error, "orig", None)
        state = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
        kind = type(cause or error).__name__
        raise StoreError(f"the database fails: {kind}{f' ({state})' if state else ''}") from None


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except ArgumentError:  # its message has the URL, and so the password
        found = None
    backend = found.get_backend_name() if found else ""
    if found is None or backend not in ("sqlite", "postgresql"):
        raise ConfigError(
            "feedback: a URL as sqlite:////var/lib/mailray/feedback.db or "
            "postgresql://user@host/database is needed, or none"
        )
    if backend == "sqlite" and found.database in (None, "", ":memory:"):
        raise ConfigError(
            "feedback: sqlite needs a file, as sqlite:////var/lib/mailray/feedback.db"
        )
    return found if backend == "sqlite" else found.set(drivername="postgresql+psycopg")


def _engine(url: URL) -> sa.Engine:
    # Parameters are mails: no exception, and no log of statements, may show them.
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            pool_size=THREADS,
            max_overflow=0,
            pool_timeout=_BUSY_S,
            connect_args={"timeout": _BUSY_S},
        )
        sa.event.listen(engine, "do_connect", _private_file)
        sa.event.listen(engine, "connect", _safe_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return sa.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=THREADS,
            max_overflow=0,
            pool_timeout=_BUSY_S,
            connect_args={
                "connect_timeout": _CONNECT_S,
                "tcp_user_timeout": _BUSY_S * 1000,
                "options": f"-c statement_timeout={_BUSY_S * 1000} -c synchronous_commit=on",
            },
        )
    except ImportError as error:
        raise ConfigError(
            "feedback: PostgreSQL needs psycopg: pip install 'mailray[server]'"
        ) from error


def _private_file(_dialect: Any, _record: Any, args: list[Any], _options: Any) -> None:
    """Made here, with mode 600, rather than by SQLite with whatever the umask is."""
    file = Path(args[0])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise sqlite3.OperationalError(error.strerror) from error


def _safe_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, by SQLAlchemy alone
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        _patiently(connection, f"PRAGMA {pragma}")


def _patiently(connection: sqlite3.Connection, pragma: str) -> None:
    """Changing to WAL does not wait for others that do the same, whatever the timeout is."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute(pragma)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later is refused at once if another wrote between.
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
