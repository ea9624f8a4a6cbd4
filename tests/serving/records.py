"""Feedback as a caller says it, and as the store keeps it."""

import threading
import uuid
from typing import Any

from serving.feedback.record import Record, key
from serving.feedback.store import Store

SAID = {"request_id": "r-1", "label": "spam", "verdict": {"label": "ham", "probability": 0.75}}
AGREED = {"store_text": True, "train": True}


def record(**given: Any) -> Record:
    fields: dict[str, Any] = dict.fromkeys(Record.__table__.columns.keys())
    request = given.pop("request_id", "r-1")
    fields |= {"id": uuid.uuid4().hex, "created": 1, "token": "", "label": "spam"}
    fields |= {"store_text": True, "train": True, "request_id": request, "body": "Hi"}
    return Record(**fields | {"key": key(request, None)} | given)


def crowd(url: str, turns: int) -> list[Exception]:
    """Six stores that start and write at once: `turns` records each, and as many that all have."""
    faults: list[Exception] = []

    def work(number: int) -> None:
        store = Store(url)
        try:
            for turn in range(turns):
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
    return faults
