"""Feedback as a caller says it, and as the store keeps it."""

import uuid
from typing import Any

from serving.feedback.record import Record, key

SAID = {"request_id": "r-1", "label": "spam", "verdict": {"label": "ham", "probability": 0.75}}
AGREED = {"store_text": True, "train": True}


def record(**given: Any) -> Record:
    fields: dict[str, Any] = dict.fromkeys(Record.__table__.columns.keys())
    request = given.pop("request_id", "r-1")
    fields |= {"id": uuid.uuid4().hex, "created": 1, "token": "", "label": "spam"}
    fields |= {"store_text": True, "train": True, "request_id": request, "body": "Hi"}
    return Record(**fields | {"key": key(request, None)} | given)
