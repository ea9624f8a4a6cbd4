"""Killed with SIGKILL at any moment, a server loses no feedback that it has acknowledged."""

import itertools
import random
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving.feedback.store import Store
from tests.conftest import unused_port
from tests.serving.server import running

WRITERS = 8


def written_until_killed(url: str, log: Path, kills: int, seed: int) -> tuple[set[str], int]:
    """The request ids that were acknowledged, and how many requests got no answer."""
    port, chance = unused_port(), random.Random(seed)
    acknowledged: set[str] = set()
    unanswered = itertools.count()
    over = threading.Event()

    def write(number: int) -> None:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        for turn in itertools.count():
            if over.is_set():
                return
            id = f"{number}-{turn}"
            body = {"request_id": id, "label": "spam", "consent": {"store_text": True}}
            body["mail"] = {"body": f"{id} " * random.Random(turn).randrange(1, 2000)}
            while not over.is_set():  # again until it is acknowledged: it is kept once
                try:
                    answer = client.post("/v1/feedback", json=body)
                except httpx.TransportError:
                    next(unanswered)
                    time.sleep(0.02)
                    continue
                assert answer.status_code in (200, 201), answer.text
                acknowledged.add(id)
                break

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    try:
        for kill in range(kills):
            with running(log, port=port, feedback=url) as process:
                if kill == 0:
                    for thread in threads:
                        thread.start()
                time.sleep(chance.uniform(0.2, 1.5))
                process.kill()
                process.join()
    finally:
        over.set()
    for thread in threads:
        thread.join()
    return acknowledged, next(unanswered)


def check(url: str, acknowledged: set[str]) -> None:
    store = Store(url)
    kept = [row.request_id for row in store.records()]
    for row in store.records():
        assert row.body
        assert row.body.startswith(f"{row.request_id} ")
    store.close()
    assert len(kept) == len(set(kept))
    assert acknowledged <= set(kept)
    # What was in flight at a kill may be there without an answer, and nothing else.
    assert len(set(kept) - acknowledged) <= WRITERS


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_acknowledged_feedback_is_lost_in_an_sqlite_file(tmp_path: Path, seed: int) -> None:
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    acknowledged, unanswered = written_until_killed(url, tmp_path / "log", 6, seed)
    assert len(acknowledged) > 50
    assert unanswered > 0  # it was killed amid requests
    check(url, acknowledged)
    with sqlite3.connect(tmp_path / "feedback.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
