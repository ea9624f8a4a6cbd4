"""A server process with an engine without weights, which logs all that it and uvicorn can."""

import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from serving.access import Access
from serving.engine import Scored
from serving.feedback.keeper import Keeper
from serving.feedback.store import Store
from tests.serving.twin import Twin, app_of


class FaultyTwin(Twin):
    """Fails on mails that ask for it, and says in its exception what they were."""

    async def classify(self, text: str, *, deadline: float | None = None) -> Scored:
        if "fail" in text:
            try:
                raise KeyError(text)
            except KeyError as error:
                raise RuntimeError(f"cannot read {text}") from error
        if "linger" in text:  # for callers who go away first
            await asyncio.sleep(0.3)
            raise RuntimeError(f"too late for {text}")
        return await super().classify(text, deadline=deadline)


# Torch and transformers are imported once, in the process that the servers are forked from.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.serving.server"])


@contextmanager
def running(log: Path, **settings: Any) -> Iterator[BaseProcess]:
    """Such a process, once it answers; killed at the end of the block, if it was not before."""
    process = _PROCESSES.Process(target=_serve, args=(log,), kwargs=settings, daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + 120
        with httpx.Client(base_url=f"http://127.0.0.1:{settings['port']}") as client:
            while True:
                assert process.is_alive(), log.read_text()
                assert time.monotonic() < deadline, "no answer within two minutes"
                try:
                    client.get("/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.join()


def _serve(
    log: Path, *, port: int, feedback: str, tokens: str | None = None, body_timeout_s: float = 30.0
) -> None:
    """Serve until killed."""
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    logging.basicConfig(level=logging.DEBUG, force=True)
    app = app_of(
        FaultyTwin(),
        access=Access(Path(tokens) if tokens else None),
        keeper=Keeper(Store(feedback)),
        body_timeout_s=body_timeout_s,
        max_in_flight=64,
    )
    uvicorn.run(app, port=port, log_level="debug", access_log=True)
