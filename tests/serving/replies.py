"""A server that answers as a test says, and both clients to ask it."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from serving.answers import Answer
from serving.client import AsyncMailrayClient, MailrayClient

REFUSED = json.dumps({"error": {"code": "not_a_mail", "message": "empty: 0 bytes of mail"}})
ANSWER: dict[str, Any] = Answer.model_json_schema()["examples"][0]
GOOD = json.dumps(ANSWER)
Reply = tuple[int, dict[str, str], str]


@contextmanager
def server(*replies: Reply) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """One that gives these answers by turns, the last for ever; its URL, and what it was asked."""
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, dict(self.headers), body))
            status, headers, text = replies[min(len(asked), len(replies)) - 1]
            if status == 0:  # breaks off
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


Ask = Callable[..., Answer]


def sync_ask(url: str, mail: Any, **settings: Any) -> Answer:
    with MailrayClient(url, **settings) as client:
        return client.classify(mail, request_id="r-1")


def async_ask(url: str, mail: Any, **settings: Any) -> Answer:
    async def scenario() -> Answer:
        async with AsyncMailrayClient(url, **settings) as client:
            return await client.classify(mail, request_id="r-1")

    return asyncio.run(scenario())


both = pytest.mark.parametrize("ask", [sync_ask, async_ask])
