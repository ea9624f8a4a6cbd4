"""The second try: what is asked again when a replica dies, and what is not."""

import asyncio
from typing import Any

import pytest

from serving import retry
from serving.retry import Message, Receive, Retry, Send

PARTS = [
    {"type": "http.request", "body": b"Subject: a", "more_body": True},
    {"type": "http.request", "body": b"\n\nb", "more_body": False},
]
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"{}"}


class Proxy:
    """Serve's proxy over replicas of which some die: before the answer, or after its first part."""

    def __init__(self, *deaths: str) -> None:
        self.deaths = list(deaths)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        # Not those that an earlier try has added, but that it is not the first.
        number = str(len(self.bodies) + 1).encode()
        assert scope["headers"] == [(b"x-mailray-try", number)] * (number != b"1")
        scope["headers"].append((b"x-request-id", b"1"))
        death = self.deaths.pop(0) if self.deaths else ""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"] or death == "amid the body":
                break
        self.bodies.append(body)
        if death == "raises":
            raise RuntimeError("lost")
        if death in ("before", "amid the body"):
            return
        await send(dict(START))
        if death != "after the start":
            await send(dict(BODY))


def ask(
    proxy: Proxy,
    method: str = "POST",
    path: str = "/v1/classify/raw",
    parts: list[dict[str, Any]] = PARTS,
) -> list[Message]:
    """What a client is sent."""
    sent: list[Message] = []
    left = list(parts)

    async def receive() -> Message:
        await asyncio.sleep(0)
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(Retry(proxy)(scope, receive, send))
    return sent


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSE_S", 0.0001)


@pytest.mark.parametrize("death", ["before", "amid the body", "after the start", "raises"])
def test_a_replica_that_dies_costs_no_request(death: str) -> None:
    proxy = Proxy(death, death)
    assert ask(proxy) == [START, BODY]
    assert len(proxy.bodies) == 3
    assert proxy.bodies[-1] == b"Subject: a\n\nb"


def test_an_answer_goes_out_once_and_as_it_is() -> None:
    proxy = Proxy()
    assert ask(proxy) == [START, BODY]
    assert len(proxy.bodies) == 1


def test_replicas_that_all_die_are_given_up() -> None:
    proxy = Proxy(*["before"] * 99)
    assert ask(proxy) == []
    assert len(proxy.bodies) == retry._TRIES
    with pytest.raises(RuntimeError, match="lost"):
        ask(Proxy(*["raises"] * 99))


@pytest.mark.parametrize(
    ("method", "path", "tries"),
    [
        ("POST", "/v1/classify", 2),
        ("POST", "/v1/explain", 2),
        ("POST", "/v2/models/mailray-spam/infer", 2),
        ("GET", "/v1/models", 2),
        ("POST", "/v1/feedback", 1),
        ("DELETE", "/v1/feedback/1", 1),
    ],
)
def test_only_what_can_be_asked_twice_is(method: str, path: str, tries: int) -> None:
    proxy = Proxy("before")
    ask(proxy, method, path)
    assert len(proxy.bodies) == tries


def test_a_client_that_has_gone_is_asked_for_nothing_more() -> None:
    proxy = Proxy(*["before"] * 99)
    ask(proxy, parts=PARTS[:1])
    assert proxy.bodies == []
