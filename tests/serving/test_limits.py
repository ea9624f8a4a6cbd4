"""What is bounded before anything is parsed: bytes, seconds, JSON's structure, mails' structure."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving.errors import ApiError
from serving.service import Room
from tests.serving.twin import JSON, RFC822, app_of, client_of

MB = 1 << 20


def post(body: Any, headers: dict[str, str], **settings: Any) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with client_of(app_of(**settings)) as client:
            return await client.post("/v1/classify", content=body, headers=headers)

    return asyncio.run(scenario())


@pytest.mark.parametrize("length", ["200001", "9" * 5000])
def test_a_body_that_says_it_is_too_large_is_refused_unread(length: str) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    answer = post(body(), {**RFC822, "Content-Length": length})
    assert (answer.status_code, read) == (413, 0)


def test_a_body_that_does_not_arrive_is_408_and_gives_its_permit_back() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"Subject: a\n\n"
        await asyncio.sleep(60)
        yield b"b"

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        async with client_of(app_of(body_timeout_s=0.05, max_in_flight=1)) as client:
            late = await client.post("/v1/classify", content=slow(), headers=RFC822)
            return late, await client.post("/v1/classify", json={"body": "Hi"})

    late, next_one = asyncio.run(scenario())
    assert (late.status_code, late.json()["error"]["code"]) == (408, "too_slow")
    assert late.headers["connection"] == "close"
    assert next_one.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 4_000_000 + b"[]]",
        b'{"body":' + b"[" * 4_000_000,
        b"[" + b"{}," * 4_000_000 + b"{}]",
        b'["' + b'","' * 4_000_000 + b'"]',
        b'["' + b'\\\\","' * 2_000_000 + b'"]',
        b"[" + b"0," * 4_000_000 + b"0]",
        b'{"body": "a"' + b" , " * 4_000_000 + b"}",
    ],
    ids=["lists", "deep", "objects", "strings", "escapes", "numbers", "commas"],
)
def test_json_that_is_more_structure_than_text_is_refused(body: bytes) -> None:
    answer = post(body, JSON, max_body_bytes=32 * MB)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_json")
    assert "beside its strings" in answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["a, [b], {c} ", 'she said "a, b" \\ ', "\\\\,[{", "ü,\n\t"])
def test_a_large_mail_in_json_is_read_whatever_it_says(text: str) -> None:
    body = json.dumps({"body": text * (8 * MB // len(text))}).encode()
    assert post(body, JSON, max_body_bytes=32 * MB).status_code == 200


BOMBS = {
    "100,000 parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\nx" * 100_000,
    "nested": b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (i, i)
        for i in range(10_000)
    ),
    "nested messages": b"Content-Type: message/rfc822\r\n\r\n" * 250 + b"x\n" * 60_000,
    "declared length": b"Content-Type: message/external-body; size=1073741824\r\n"
    b"Content-Transfer-Encoding: base64\r\nContent-Length: 1073741824\r\n\r\naGk=",
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"aGVsbG8g" * 3_900_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_mime_bomb_is_answered(bomb: bytes) -> None:
    """Its time and memory are bounded in tests/training/test_mail_fuzz.py, beside many others."""
    assert post(bomb, RFC822, max_body_bytes=32 * MB).status_code == 200


def test_bodies_are_held_up_to_a_number_of_bytes_and_then_refused() -> None:
    body = b"Subject: a\n\n" + b"x" * 90_000

    async def scenario() -> tuple[list[int], httpx.Response]:
        go = asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield body
            await go.wait()

        async with client_of(app_of(max_body_bytes=100_000, max_in_flight=32)) as client:

            async def ask(content: Any) -> httpx.Response:
                return await client.post("/v1/classify", content=content, headers=RFC822)

            first = [asyncio.ensure_future(ask(held())) for _ in range(8)]
            await asyncio.sleep(0.1)
            refused, small = await ask(body), await ask(b"Subject: a\n\nx")
            go.set()
            statuses = [(await each).status_code for each in first]
            return [*statuses, small.status_code, (await ask(body)).status_code], refused

    statuses, refused = asyncio.run(scenario())
    assert statuses == [200] * 10
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert "bytes are being read" in refused.json()["error"]["message"]


def test_a_body_that_is_alone_has_room_whatever_its_size() -> None:
    room = Room(10)
    with room.body() as take:
        take(8)
        take(8)
        with room.body() as other, pytest.raises(ApiError, match="16 bytes are being read"):
            other(1)
    with room.body() as take:
        take(100)
