"""`mailray tokens` and `mailray feedback`, as a person types them."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from serving.feedback.record import Record, key
from serving.feedback.store import Store
from serving.tokens import digest, read

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def mailray(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "cluster.main", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done


def test_a_token_is_printed_once_and_revoked(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    words = ("--file", str(file))
    limits = ("--rate", "600/min", "--scope", "classify", "--expires", "90d")
    secret = mailray("tokens", "create", "gateway", *limits, *words).stdout.strip()
    [token] = read(file)
    assert (token.sha256, token.rate, token.scopes) == (digest(secret), "600/min", ("classify",))
    listed = json.loads(mailray("tokens", "list", *words, "--json").stdout)["tokens"]
    assert [(row["name"], row["expired"]) for row in listed] == [("gateway", False)]
    assert "has a token gateway" in mailray("tokens", "create", "gateway", *words, code=2).stderr
    assert not any(secret in log.read_text() for log in (home / "logs").iterdir())
    mailray("tokens", "revoke", "gateway", *words)
    assert read(file) == ()
    assert "no token gateway" in mailray("tokens", "revoke", "gateway", *words, code=2).stderr


def test_feedback_is_exported_as_a_source_and_erased(home: Path, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{home / 'feedback.db'}")
    ids = []
    for number in range(40):
        fields: dict[str, Any] = dict.fromkeys(Record.__table__.columns.keys()) | {
            "id": uuid.uuid4().hex,
            "created": time.time_ns() // 1_000_000,
            "token": "gateway",
            "key": key(str(number), None),
            "label": ("ham", "spam")[number % 2],
            "store_text": True,
            "train": number != 0,
            "subject": f"Word {uuid.uuid4().hex}",
            "body": f"{uuid.uuid4().hex} {uuid.uuid4().hex}",
        }
        ids.append(store.add(Record(**fields))[0])
    store.close()
    listed = json.loads(mailray("feedback", "list", "--json").stdout)
    assert listed["total"] == 40
    assert "Word" not in json.dumps(listed)
    file = tmp_path / "desk.jsonl"
    done = json.loads(mailray("feedback", "export", str(file), "--json").stdout)
    assert done == {"file": str(file), "mails": 39, "without_a_mail": 0}
    assert file.stat().st_mode & 0o777 == 0o600
    shown = mailray("data", "show", "--recipe", "smoke", f"data.source={file}", "--json").stdout
    assert json.loads(shown)["mails"] == 39
    mailray("feedback", "erase", ids[0])
    assert ids[0] in mailray("feedback", "erase", ids[0], code=2).stderr
    assert json.loads(mailray("feedback", "list", "--json").stdout)["total"] == 39
