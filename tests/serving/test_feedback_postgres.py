"""The store on a real PostgreSQL, where Debian's is installed: the same promises as in SQLite."""

import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from serving.feedback.record import Base
from serving.feedback.store import ConflictError, Store, StoreError
from tests.conftest import unused_port
from tests.serving.records import crowd, record
from tests.serving.test_feedback_killed import check, written_until_killed

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS, reason="no PostgreSQL in /usr/lib/postgresql"),
]


@dataclass
class Server:
    """A PostgreSQL of its own, run by another user where this is root, as it demands."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql://keeper:quokka@127.0.0.1:{self.port}/postgres"

    def run(self, *words: str) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*(user if os.geteuid() == 0 else []), str(PROGRAMS[-1] / words[0]), *words[1:]]

    def start(self) -> None:
        options = [f"-p{self.port}", "-clisten_addresses=127.0.0.1", f"-k{self.folder}"]
        command = self.run("postgres", "-D", str(self.folder / "data"), *options)
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        store, deadline = Store(self.url), time.monotonic() + 60
        while True:
            try:
                store.prepare()
                break
            except StoreError:
                assert time.monotonic() < deadline, "no PostgreSQL within a minute"
                time.sleep(0.1)
        store.close()

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))  # pytest's are closed to its user
    secret = folder / "password"
    secret.write_text("quokka")
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for place in (folder, secret):
            os.chown(place, user.pw_uid, user.pw_gid)
    server = Server(folder, unused_port())
    words = ["-Ukeeper", f"--pwfile={secret}", "-Ascram-sha-256", "-EUTF8"]
    subprocess.run(
        server.run("initdb", "-D", str(folder / "data"), *words), check=True, capture_output=True
    )
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    store = Store(server.url)
    yield store
    with store._engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE feedback")
    store.close()


def test_feedback_is_kept_once_and_erased(store: Store) -> None:
    id, new = store.add(record(body="Grüße \N{LATIN SMALL LETTER A WITH RING ABOVE} \U0001f600"))
    assert new
    assert store.add(record(body="again")) == (id, False)
    with pytest.raises(ConflictError, match=id):
        store.add(record(train=False))
    assert [row.body for row in store.records(train=True)] == ["Grüße å \U0001f600"]
    assert not store.erase(id, "another")
    assert store.erase(id, "")
    assert store.count() == 0
    store.add(record(request_id="m" * 128, message_id="\U0001f600" * 998))
    assert store.expire(1) == 1


def test_the_migrations_make_what_the_records_say(store: Store) -> None:
    with store._engine.connect() as connection:
        options = {"version_table": "feedback_version"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def test_many_that_start_at_once_migrate_once(server: Server, store: Store) -> None:
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE feedback, feedback_version")
    assert crowd(server.url, 10) == []
    assert store.count() == 70


def test_no_fault_tells_the_row_or_the_password(server: Server, store: Store) -> None:
    with pytest.raises(StoreError) as error:  # its own message quotes the row
        store.add(record(label=None, body="quokka"))
    assert "quokka" not in str(error.value)
    with pytest.raises(StoreError) as error:
        store.add(record(model="quokka" * 100))
    assert "quokka" not in str(error.value)
    away = Store(server.url.replace(str(server.port), str(unused_port())))
    with pytest.raises(StoreError) as error:
        away.prepare()
    assert "quokka" not in str(error.value) + away.place


def test_no_acknowledged_feedback_is_lost_when_mailray_is_killed(
    server: Server, store: Store, tmp_path: Path
) -> None:
    acknowledged, unanswered = written_until_killed(server.url, tmp_path / "log", 4, 3)
    assert acknowledged
    assert unanswered
    check(server.url, acknowledged)


def test_no_acknowledged_feedback_is_lost_when_postgresql_is_killed(
    server: Server, store: Store
) -> None:
    acknowledged: list[str] = []
    over = threading.Event()

    def write(number: int) -> None:
        own, turn = Store(server.url), 0
        while not over.is_set():
            request = f"{number}-{turn}"
            try:
                own.add(record(request_id=request))
            except StoreError:
                time.sleep(0.05)
                continue
            acknowledged.append(request)
            turn += 1
        own.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    chance = random.Random(4)
    for _ in range(3):
        time.sleep(chance.uniform(0.3, 1.5))
        server.kill()
        server.start()
    over.set()
    for thread in threads:
        thread.join()
    kept = {row.request_id for row in store.records()}
    assert acknowledged
    assert set(acknowledged) <= kept
    assert len(kept - set(acknowledged)) <= 4
