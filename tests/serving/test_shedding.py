"""What Serve's proxy refuses by itself."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving import shedding
from serving.shedding import LIMIT, Shed, limit


class Held:
    """An application whose POSTs are answered when it is told to; it fails on some."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            self.inside += 1
            await self.go.wait()
            if await Request(scope, receive).body() == b"fail":
                raise RuntimeError("lost")
        await Response("ok")(scope, receive, send)


def client_of(app: Shed) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://mailray")


def test_the_one_too_many_is_refused_and_the_next_is_not() -> None:
    async def scenario() -> None:
        held = Held()
        async with client_of(Shed(held, 2)) as client, asyncio.TaskGroup() as group:
            inside = [
                group.create_task(client.post("/v1/classify", content=body))
                for body in (b"fail", b"mail")
            ]
            while held.inside < 2:
                await asyncio.sleep(0)
            refused = await client.post("/v1/classify", content=b"mail" * 100_000)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["code"] == "overloaded"
            refused = await client.post("/v2/models/m/infer")
            assert refused.json()["error"].startswith("overloaded: ")
            assert (await client.get("/readyz")).status_code == 200
            held.go.set()
            assert [(await each).status_code for each in inside] == [500, 200]
            # A failed one has left its place, too.
            again = [client.post("/v1/classify", content=b"mail") for _ in range(2)]
            assert {each.status_code for each in await asyncio.gather(*again)} == {200}

    asyncio.run(scenario())


def test_a_refused_body_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(shedding, "_BYTES", 1000)

    async def asked(body: list[bytes]) -> httpx.Response:
        """With a body that comes in these parts and does not end."""

        async def parts() -> AsyncIterator[bytes]:
            for part in body:
                yield part
            await asyncio.sleep(60)

        async with client_of(Shed(Held(), 0)) as client:
            return await client.post("/v1/classify", content=parts())

    for body in ([b"slow"], [b"large" * 1000]):
        refused = asyncio.run(asked(body))
        assert (refused.status_code, refused.headers["connection"]) == (429, "close")


def test_retry_after_is_what_an_answer_took_and_not_a_refusal() -> None:
    now = iter([10.0, 14.2, 20.0])
    statuses = iter([200, 401])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("", next(statuses))(scope, receive, send)

    async def scenario() -> None:
        shed = Shed(application, 1, lambda: next(now))
        async with client_of(shed) as client:
            await client.post("/v1/classify")
            await client.post("/v1/classify")
        async with client_of(Shed(application, 0)) as client:
            assert (await client.post("/v1/classify")).headers["retry-after"] == "1"
        shed._limit = 0
        async with client_of(shed) as client:
            assert (await client.post("/v1/classify")).headers["retry-after"] == "5"

    asyncio.run(scenario())


def test_without_a_limit_all_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        held = Held()
        held.go.set()
        async with client_of(Shed(held, None)) as client:
            calls = [client.post("/v1/classify", content=b"mail") for _ in range(20)]
            assert {each.status_code for each in await asyncio.gather(*calls)} == {200}

    asyncio.run(scenario())
    for text, expected in (("256", 256), ("0", None), ("-1", None), ("many", None), ("", None)):
        monkeypatch.setenv(LIMIT, text)
        assert limit() == expected
    monkeypatch.delenv(LIMIT)
    assert limit() is None
