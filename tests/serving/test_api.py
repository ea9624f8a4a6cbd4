"""The API over an engine that has no weights: what it answers, and what it refuses and how."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.serving.twin import JSON, MAIL, RFC822, TEXT, Send, Twin, app_of, client_of, refusal


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/v1/classify", RFC822, MAIL),
        ("/v1/classify", {"Content-Type": "Message/RFC822; charset=utf-8"}, MAIL),
        ("/v1/classify/raw", RFC822, MAIL),
        ("/v1/classify/raw", {"Content-Type": "application/octet-stream"}, MAIL),
        ("/v1/classify", JSON, json.dumps({"raw": MAIL.decode()}).encode()),
        ("/v1/classify", JSON, json.dumps({"raw_base64": b64encode(MAIL).decode()}).encode()),
        (
            "/v1/classify",
            JSON,
            b'{"subject": "Lunch", "from": "Ann <ann@example.org>", "body": "At noon?"}',
        ),
    ],
)
def test_every_way_to_send_a_mail_gives_the_model_the_same_text(
    send: Send, twin: Twin, path: str, headers: dict[str, str], body: bytes
) -> None:
    response = send("POST", path, content=body, headers={**headers, "X-Request-ID": "r-1"})
    assert response.status_code == 200
    answer = response.json()
    assert answer == {
        "label": "ham",
        "labels": ["ham"],
        "probability": 0.75,
        "scores": {"ham": 0.75, "spam": 0.25},
        "model": "twin",
        "version": "3",
        "operating_point": "balanced",
        "threshold": 0.5,
        "unsure": False,
        "mail_text_version": 1,
        "request_id": "r-1",
        "timings": {"parse": answer["timings"]["parse"], "tokenize": 1, "queue": 2, "forward": 3},
    }
    assert answer["timings"]["parse"] > 0
    assert twin.texts == [TEXT]


@pytest.mark.parametrize("given", ["r-1", "~" * 128])
def test_a_requests_id_comes_back(send: Send, given: str) -> None:
    response = send("POST", "/v1/classify", json={"body": "Hi"}, headers={"X-Request-ID": given})
    assert response.json()["request_id"] == given
    assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [None, b"", b"~" * 129, b"a b", b"\xff\xfe", b"a\tb"])
def test_what_is_no_id_gives_way_to_one_of_its_own(send: Send, given: bytes | None) -> None:
    headers: dict[bytes, bytes] = {} if given is None else {b"X-Request-ID": given}
    responses = [
        send("POST", "/v1/classify", json={"body": "Hi"}, headers=headers) for _ in range(2)
    ]
    for response in responses:
        [id_] = response.headers.get_list("x-request-id")
        assert response.json()["request_id"] == id_
        assert re.fullmatch("[0-9a-f]{32}", id_)
    assert responses[0].json()["request_id"] != responses[1].json()["request_id"]


def test_refusals_carry_the_requests_id_as_well(send: Send, twin: Twin) -> None:
    twin.fault = ZeroDivisionError("secret")
    for path, body in [("/v1/classify", {"body": "Hi"}), ("/v1/classify", {}), ("/nowhere", {})]:
        response = send("POST", path, json=body, headers={"X-Request-ID": "r-1"})
        assert response.status_code in (500, 422, 404)
        assert response.headers.get_list("x-request-id") == ["r-1"]


@pytest.mark.parametrize("field", ["subject", "from", "body"])
def test_any_one_field_is_enough(send: Send, field: str) -> None:
    assert send("POST", "/v1/classify", json={field: "Hi"}).status_code == 200


def test_a_long_mail_is_read_in_full(send: Send, twin: Twin) -> None:
    body = b"Subject: long\n\n" + b"word " * 30_000
    assert send("POST", "/v1/classify/raw", content=body, headers=RFC822).status_code == 200
    assert twin.texts[0].startswith("subject: long\nfrom: \n\nword word")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"body": NaN}', "NaN"),
        (b'{"body": -Infinity}', "Infinity"),
        (b'{"body": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"body": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
def test_malformed_json_is_400(send: Send, body: bytes, words: str) -> None:
    status, code, message = refusal(send("POST", "/v1/classify", content=body, headers=JSON))
    assert (status, code) == (400, "malformed_json")
    assert words in message


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\x89PNG\r\n", b"\x00\x01\x02"])
def test_what_is_no_mail_is_400(send: Send, body: bytes) -> None:
    response = send("POST", "/v1/classify/raw", content=body, headers=RFC822)
    assert refusal(response)[:2] == (400, "not_a_mail")


def test_a_blank_raw_string_is_400(send: Send) -> None:
    response = send("POST", "/v1/classify", json={"raw": " "})
    assert refusal(response)[:2] == (400, "not_a_mail")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"body": 1}, "body: "),
        ({"subject": None}, "subject: "),
        ({"from": ["a"], "body": {"a": 1}}, "body: "),
        ({"body": "Hi", "text": "Hi"}, "'text': no such field"),
        ({"body": "Hi", "sender": "a"}, "'sender': no such field"),
        ({"body": "Hi", "\ud800": "Hi"}, "ud800': no such field"),
        ({"raw": "Subject: a\n\nb", "body": "Hi"}, "'body': no such field"),
        ({"raw": 1}, "raw: "),
        ({"raw_base64": 1}, "raw_base64: "),
        ({"raw_base64": "QQ"}, "raw_base64: is not base64"),
        ({"raw_base64": "Q\u00e9=="}, "raw_base64: is not base64"),
        ({}, "must not be blank"),
        ({"subject": " ", "body": ""}, "must not be blank"),
        ([], "object"),
        (None, "object"),
        ({str(number): 1 for number in range(1000)}, "and 995 more"),
    ],
)
def test_wrong_fields_are_422_and_named(send: Send, body: Any, words: str) -> None:
    response = send("POST", "/v1/classify", content=json.dumps(body), headers=JSON)
    status, code, message = refusal(response)
    assert (status, code) == (422, "invalid_fields")
    assert words in message


def test_a_field_given_twice_is_422(send: Send) -> None:
    body = b'{"body": "Hi", "body": "Ho"}'
    status, _, message = refusal(send("POST", "/v1/classify", content=body, headers=JSON))
    assert (status, message) == (422, "'body': given more than once")


def test_half_characters_and_nuls_are_dropped_as_in_mail_text(send: Send, twin: Twin) -> None:
    body = rb'{"subject": "a\ud800b", "body": "c\u0000d"}'
    assert send("POST", "/v1/classify", content=body, headers=JSON).status_code == 200
    assert twin.texts == ["subject: ab\nfrom: \n\ncd"]


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 10_000


@pytest.mark.parametrize("length", [{}, {"Content-Length": "10"}])
def test_a_large_body_is_413_whatever_length_it_claims(
    send: Send, length: dict[str, str], twin: Twin
) -> None:
    response = send("POST", "/v1/classify/raw", content=chunks(21), headers={**RFC822, **length})
    status, code, message = refusal(response)
    assert (status, code) == (413, "too_large")
    assert "200,000 bytes" in message
    assert twin.texts == []
    response = send("POST", "/v1/classify/raw", content=chunks(20), headers=RFC822)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/v1/classify", "text/plain"),
        ("/v1/classify", "application/octet-stream"),
        ("/v1/classify", None),
        ("/v1/classify", "\u00ff" * 300),
        ("/v1/classify/raw", "application/json"),
    ],
)
def test_another_content_type_is_415(send: Send, path: str, media: str | None) -> None:
    headers = {} if media is None else {"Content-Type": media.encode("latin-1")}
    status, code, message = refusal(send("POST", path, content=MAIL, headers=headers))
    assert (status, code) == (415, "unsupported_content_type")
    assert "message/rfc822" in message


def test_more_requests_than_permits_are_429_and_permits_come_back(twin: Twin) -> None:
    async def scenario() -> None:
        async with client_of(app_of(twin, max_in_flight=2)) as client:

            async def post(body: Any) -> httpx.Response:
                return await client.post("/v1/classify", json=body)

            twin.go.clear()
            working = [asyncio.create_task(post({"body": "Hi"})) for _ in range(2)]
            while len(twin.texts) < 2:
                await asyncio.sleep(0.001)
            refused = await post({"body": "Hi"})
            assert refusal(refused)[:2] == (429, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/healthz")).status_code == 200
            twin.go.set()
            assert [r.status_code for r in await asyncio.gather(*working)] == [200, 200]
            for _ in range(3):  # a refused body gives its permit back as well
                assert (await post({})).status_code == 422
            assert (await post({"body": "Hi"})).status_code == 200

    asyncio.run(scenario())


def test_an_engine_that_is_not_ready_is_503_and_alive(send: Send, twin: Twin) -> None:
    twin.ready = False
    for method, path in [("POST", "/v1/classify"), ("GET", "/readyz")]:
        response = send(method, path, headers=JSON)
        assert refusal(response)[:2] == (503, "not_ready")
        assert response.headers["retry-after"] == "1"
    assert send("GET", "/healthz").json() == {"status": "ok"}


def test_an_engine_that_closes_while_a_body_comes_in_is_503(send: Send, twin: Twin) -> None:
    async def closing() -> AsyncIterator[bytes]:
        yield MAIL
        twin.ready = False

    response = send("POST", "/v1/classify/raw", content=closing(), headers=RFC822)
    assert refusal(response)[:2] == (503, "not_ready")
    assert twin.texts == []


def test_a_fault_of_the_engine_is_500_and_tells_nothing(send: Send, twin: Twin) -> None:
    twin.fault = ZeroDivisionError("secret")
    response = send("POST", "/v1/classify", json={"body": "Hi"})
    assert refusal(response)[:2] == (500, "internal")
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_other_paths_are_404_and_other_methods_405(send: Send) -> None:
    assert refusal(send("GET", "/v1/model"))[:2] == (404, "not_found")
    response = send("GET", "/v1/classify")
    assert refusal(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
