"""The client, against servers that answer otherwise than it hopes."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serving.client import ClientError, classify

REFUSED = json.dumps({"error": {"code": "not_a_mail", "message": "empty: 0 bytes of mail"}})


@contextmanager
def server(status: int, body: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_answer_comes_back_as_it_is() -> None:
    with server(200, '{"label": "ham"}') as url:
        assert classify(f"{url}/", b"Subject: a\n\nb", 5) == {"label": "ham"}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, REFUSED, r"refuses \(400\): empty: 0 bytes of mail$"),
        (429, "shed by the proxy\nmore", r"refuses \(429\): shed by the proxy$"),
        (502, "", r"refuses \(502\): "),
        (404, "[]", r"refuses \(404\): \[\]$"),
        (200, "<html>", "no mailray server"),
        (200, "[1]", "no mailray server"),
    ],
)
def test_a_refusal_is_one_line_in_the_servers_words(status: int, body: str, words: str) -> None:
    with server(status, body) as url, pytest.raises(ClientError, match=words) as caught:
        classify(url, b"", 5)
    assert "\n" not in str(caught.value)


def test_where_nothing_answers_it_says_how_to_start_a_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: no other takes it meanwhile
        with pytest.raises(ClientError, match="`mailray serve` starts"):
            classify(f"http://127.0.0.1:{taken.getsockname()[1]}", b"", 5)


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ClientError, match=r"not answered within 0\.1 s"):
            classify(f"http://127.0.0.1:{silent.getsockname()[1]}", b"", 0.1)


@pytest.mark.parametrize("url", ["localhost:8000", "", "http://[::1", "ftp://a"])
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ClientError, match="is no URL"):
        classify(url, b"", 5)
