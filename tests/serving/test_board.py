"""Every replica stands on the board while it lives, whichever of them is asked."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from serving.board import Alone, Replicas, Snapshot
from tests.conftest import unused_port

REPLICAS = 3


def test_a_server_of_one_process_tells_of_itself_anew_each_time() -> None:
    counts = iter(range(10))
    board = Alone(lambda _: Snapshot("local", next(counts), "mailray_mails_total 1.0\n"))
    assert [asyncio.run(board.all())[0].at for _ in range(2)] == [0, 1]


class Told:
    """A replica that tells its process id, and has the board at /."""

    def __init__(self) -> None:
        from ray import serve

        context = serve.get_replica_context()
        self._name = context.replica_id.unique_id
        self._board = Replicas(self._own, deployment=context.deployment, app=context.app_name)

    def _own(self, metrics: bool) -> Snapshot:
        return Snapshot(self._name, time.time(), "x" * metrics, {"pid": os.getpid()})

    async def snapshot(self, metrics: bool) -> Snapshot:
        return self._own(metrics)

    def __serve_build_asgi_app__(self) -> Any:
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        async def board() -> list[dict[str, Any]]:
            return [
                {"replica": each.replica, "at": each.at, "asked": os.getpid(), **(each.drift or {})}
                for each in await self._board.all()
            ]

        return app


@pytest.fixture
def ask(ray_session: None) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    port = unused_port()
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=port),
    )
    deployment = serve.deployment(
        name="Told", num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0.1}
    )(serve.ingress()(Told))
    serve.run(deployment.bind(), name="told")

    def asked() -> list[dict[str, Any]]:
        # Of those that Serve sends to a replica that is stopped, none is answered.
        for _ in range(20):
            try:
                found: list[dict[str, Any]] = httpx.get(
                    f"http://127.0.0.1:{port}", timeout=3
                ).json()
                return found
            except httpx.TimeoutException:
                continue
        raise AssertionError("no replica answers")

    yield asked
    serve.shutdown()


def until(ask: Callable[[], list[dict[str, Any]]], pids: Callable[[set[int]], bool]) -> None:
    """Wait for a board of such processes."""
    deadline = time.monotonic() + 60
    while not pids({each["pid"] for each in ask()}):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_the_board_has_who_lives_and_answers(ask: Callable[[], list[dict[str, Any]]]) -> None:
    until(ask, lambda pids: len(pids) == REPLICAS)
    first = ask()
    assert len({each["replica"] for each in first}) == REPLICAS
    assert first[0]["at"] < ask()[0]["at"]
    mute = next(each["pid"] for each in first if each["pid"] != each["asked"])
    os.kill(mute, signal.SIGSTOP)
    try:
        assert {each["pid"] for each in ask()} == {each["pid"] for each in first} - {mute}
    finally:
        os.kill(mute, signal.SIGKILL)
    until(ask, lambda pids: mute not in pids and len(pids) == REPLICAS)
