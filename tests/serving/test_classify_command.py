"""`mailray classify --url`: many mails at once, with a token, and what stops it."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.answers import Answer
from tests.end_to_end.terminal import run

ANSWER: dict[str, Any] = Answer.model_json_schema()["examples"][0]
TOGETHER = 4


class Server(ThreadingHTTPServer):
    """Answers each mail with its own subject as label, once several have come together."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.together = threading.Barrier(TOGETHER, timeout=60)
        self.tokens: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        if self.headers["Authorization"] == "Bearer wrong":
            self.reply(401, {"error": {"code": "unauthorized", "message": "no such token"}})
        elif not body:
            self.reply(400, {"error": {"code": "not_a_mail", "message": "empty"}})
        else:
            self.server.together.wait()
            label = body.decode().split()[1]
            self.reply(200, ANSWER | {"label": label, "labels": [label]})

    def reply(self, status: int, answer: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


@pytest.fixture
def mails(tmp_path: Path) -> list[str]:
    files = [tmp_path / f"{number}.eml" for number in range(TOGETHER)]
    for number, file in enumerate(files):
        file.write_text(f"Subject: label{number}\n\nbody\n")
    return [str(file) for file in files]


def test_mails_are_asked_about_together_and_told_in_their_order(
    server: Server, mails: list[str], home: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t-1\n")
    (tmp_path / "empty.eml").touch()
    words = [*mails[:2], str(tmp_path / "empty.eml"), *mails[2:], "--url", server.url]
    said = run(home, "classify", *words, "--token-file", str(tmp_path / "token"), "--json")
    assert said.code == 2
    answers = said.json["mails"]
    assert [answer.get("label") for answer in answers] == [
        "label0",
        "label1",
        None,
        "label2",
        "label3",
    ]
    assert answers[2]["error"] == f"{server.url} refuses (400): empty"
    assert answers[0]["operating_point"] == "balanced"
    assert server.tokens == {"Bearer t-1"}


def test_a_refused_token_stops_all_with_one_line(
    server: Server, mails: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MAILRAY_TOKEN", "wrong")
    said = run(home, "classify", *mails, "--url", server.url)
    assert said.code == 1
    assert f"{server.url} refuses (401): no such token" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_token_file_that_is_none_is_told(mails: list[str], home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for file, words in [("none", "No such file"), ("empty", "is empty")]:
        said = run(
            home, "classify", mails[0], "--url", "http://127.0.0.1:1",
            "--token-file", str(tmp_path / file),
        )  # fmt: skip
        assert said.code == 2
        assert f"--token-file: {tmp_path / file}" in said.err
        assert words in said.err


def test_where_nothing_answers_one_line_says_so(mails: list[str], home: Path) -> None:
    said = run(home, "classify", *mails, "--url", "http://127.0.0.1:1")
    assert said.code == 1
    assert "nothing answers at http://127.0.0.1:1; `mailray serve` starts a server" in said.err
    assert "Traceback" not in said.err
