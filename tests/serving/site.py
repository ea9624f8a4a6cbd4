"""A server with the page, over an engine without weights, on a port of this machine.

with site() as server:
    server.url, server.token, server.fault, server.seen

`clean`, `text` and `shown` say what a browser has of it.
"""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from serving.api import build_api
from serving.classifier import ModelInfo, Verdict
from serving.drift import Drift
from serving.engine import Scored, Timings
from tests.training.chromium import Chromium
from training.mail import mail_text, text_options

LIMIT = 300_000
WEIGHTS = {"prize": 2.0, "claim": 0.9, "lunch": -1.6}
"""Of words, for spam."""


class Twin:
    """Calls a mail spam where it names a prize, and unsure where it says maybe."""

    ready = True

    def __init__(self, bundle: Path | None = None) -> None:
        self.model = ModelInfo(
            "twin", "3", ("ham", "spam"), False, 2, (), 64, "fp32", bundle=bundle
        )
        self.drift: Drift | None = None

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        unsure = "maybe" in text
        spam = 0.7 if unsure else 0.9975 if "prize" in text.lower() else 0.02
        label, probability = ("spam", spam) if spam > 0.9 else ("ham", 1 - spam)
        scores = {"ham": 1 - spam, "spam": spam}
        verdict = Verdict(
            label, (label,), probability, scores, "twin", "3", "balanced", 0.9, unsure
        )
        return Scored(verdict, Timings(0.5, 1.25, 9.75))


@dataclass
class Site:
    """The server, and what a test wants of it."""

    app: FastAPI
    twin: Twin
    url: str = ""
    token: str = ""
    """The one that lets a request to the API pass; '' asks for none."""
    fault: tuple[int, dict[str, Any], dict[str, str]] | None = None
    """Status, body and headers of the answer to the next requests for a verdict."""
    explained: tuple[int, dict[str, Any]] | None = None
    """The same for reasons, in place of them."""
    raw: bool = False
    """Whether reasons tell the mail as it came, which no model reads, in place of its text."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Path, media type and body of each mail that came."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, explain, or pass on to the API."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        given = request.headers.get("authorization", "")
        if self.token and given != f"Bearer {self.token}":
            return await _refused(401, "unauthorized", "this token is not known")(
                scope, receive, send
            )
        if request.method == "POST":
            body = await request.body()
            self.seen.append((scope["path"], request.headers.get("content-type", ""), body))
            if scope["path"] == "/v1/explain":
                return await self._explain(body)(scope, receive, send)
            if self.fault:
                status, tree, headers = self.fault
                return await JSONResponse(tree, status, headers)(scope, receive, send)
            parts = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> Any:
                return next(parts, None) or await receive()

            receive = again
        await self.app(scope, receive, send)

    def _explain(self, body: bytes) -> JSONResponse:
        if self.explained:
            return JSONResponse(self.explained[1], self.explained[0])
        text = body.decode("utf-8", "replace") if self.raw else mail_text(body, text_options(()))
        spans = [
            {
                "section": "body",
                "start": match.start(),
                "end": match.end(),
                "text": match[0],
                "weight": WEIGHTS.get(match[0].lower(), 0.01),
                "named": match[0] in ("subject:", "from:"),
                "field": None,
            }
            for match in re.finditer(r"[\w:]+|[^\w\s]", text)
        ]
        return JSONResponse(
            {
                "label": "spam", "probability": 0.99, "score": 5.0, "baseline": 1.0, "gap": 0.0,
                "complete": True, "tolerance": 0.01, "steps": 16, "seconds": 0.1, "elsewhere": 0.0,
                "text": text, "spans": spans, "findings": self.findings, "model": "twin",
                "version": "3", "request_id": "r",
            }
        )  # fmt: skip


def _refused(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


@contextmanager
def site(bundle: Path | None = None) -> Iterator[Site]:
    """A server for the time of the block."""
    twin = Twin(bundle)
    app = build_api(twin, max_in_flight=8, max_body_bytes=LIMIT)
    found = Site(app, twin)
    config = uvicorn.Config(found, "127.0.0.1", 0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    found.url = f"http://127.0.0.1:{port}"
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join(10)


def clean(browser: Chromium, server: Site) -> None:
    """Nothing was said in the console, and nothing asked for but this server."""
    assert browser.faults == []
    assert browser.dialogs == []
    assert {url for url in browser.requests if not url.startswith((server.url, "data:"))} == set()


def text(browser: Chromium, selector: str) -> str:
    return str(browser.value(f"document.querySelector({selector!r}).innerText"))


def shown(browser: Chromium, selector: str) -> bool:
    return bool(browser.value(f"document.querySelector({selector!r}).checkVisibility()"))
