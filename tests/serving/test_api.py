"""The API over an engine that has no weights: what it answers, and what it refuses and how."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api import build_api
from serving.classifier import ModelInfo, Verdict
from serving.errors import KINDS

LIMIT = 200_000
JSON = {"Content-Type": "application/json"}
RFC822 = {"Content-Type": "message/rfc822"}
MAIL = b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n"
TEXT = "subject: Lunch\nfrom: Ann <ann@example.org>\n\nAt noon?"


class Twin:
    """Says ham, and keeps the texts it was given."""

    model = ModelInfo("twin", "3", ("ham", "spam"), False, 1, (), 64, "fp32")

    def __init__(self) -> None:
        self.ready = True
        self.fault: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.texts: list[str] = []

    async def classify(self, text: str) -> Verdict:
        self.texts.append(text)
        await self.go.wait()
        if self.fault:
            raise self.fault
        return Verdict("ham", ("ham",), 0.75, {"ham": 0.75, "spam": 0.25}, "twin", "3")


@pytest.fixture
def twin() -> Twin:
    return Twin()


def client_of(twin: Twin, *, max_in_flight: int = 8) -> httpx.AsyncClient:
    app = build_api(twin, max_in_flight=max_in_flight, max_body_bytes=LIMIT)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://mailray")


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(twin: Twin) -> Send:
    def one(method: str, path: str, **request: Any) -> httpx.Response:
        async def scenario() -> httpx.Response:
            async with client_of(twin) as client:
                return await client.request(method, path, **request)

        return asyncio.run(scenario())

    return one


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an answer that must have the one shape of errors."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]["code"], body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/v1/classify", RFC822, MAIL),
        ("/v1/classify", {"Content-Type": "Message/RFC822; charset=utf-8"}, MAIL),
        ("/v1/classify/raw", RFC822, MAIL),
        ("/v1/classify/raw", {"Content-Type": "application/octet-stream"}, MAIL),
        ("/v1/classify", JSON, json.dumps({"raw": MAIL.decode()}).encode()),
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
    assert response.json() == {
        "label": "ham",
        "labels": ["ham"],
        "probability": 0.75,
        "scores": {"ham": 0.75, "spam": 0.25},
        "model": "twin",
        "version": "3",
        "request_id": "r-1",
    }
    assert twin.texts == [TEXT]


def test_a_request_without_an_id_gets_one_of_its_own(send: Send) -> None:
    ids = {send("POST", "/v1/classify", json={"body": "Hi"}).json()["request_id"] for _ in range(2)}
    assert len(ids) == 2


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
        async with client_of(twin, max_in_flight=2) as client:

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
    assert refusal(send("GET", "/v2/classify"))[:2] == (404, "not_found")
    response = send("GET", "/v1/classify")
    assert refusal(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_the_model_route_says_which_model_answers(send: Send) -> None:
    assert send("GET", "/v1/model").json() == {
        "name": "twin",
        "version": "3",
        "labels": ["ham", "spam"],
        "multi_label": False,
        "mail_text_version": 1,
        "extras": [],
        "max_length": 64,
        "precision": "fp32",
        "runtime": "torch",
        "measured": {},
    }
    assert send("GET", "/readyz").status_code == 200


def test_openapi_declares_every_body_and_every_refusal(send: Send) -> None:
    document = send("GET", "/openapi.json").json()
    route = document["paths"]["/v1/classify"]["post"]
    content = route["requestBody"]["content"]
    assert set(content) == {"application/json", "message/rfc822"}
    fields = [set(kind["properties"]) for kind in content["application/json"]["schema"]["oneOf"]]
    assert fields == [{"subject", "from", "body"}, {"raw"}]
    statuses = {str(kind.status) for kind in KINDS.values()} - {"404", "405"}
    assert set(route["responses"]) == statuses | {"200"}
    for status in statuses:
        schema = route["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    assert "Retry-After" in route["responses"]["429"]["headers"]
    raw = document["paths"]["/v1/classify/raw"]["post"]["requestBody"]["content"]
    assert set(raw) == {"message/rfc822", "application/octet-stream"}


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(
    st.sampled_from(["subject", "from", "body", "raw"]) | st.text(st.characters()), trees
)
bodies = st.binary() | (trees | objects).map(lambda tree: json.dumps(tree).encode())
medias = st.sampled_from(["application/json", "message/rfc822", "application/octet-stream", ""])


@settings(max_examples=60, deadline=None)
@given(body=bodies, media=medias, path=st.sampled_from(["/v1/classify", "/v1/classify/raw"]))
def test_no_body_makes_the_server_fail(body: bytes, media: str, path: str) -> None:
    async def scenario() -> httpx.Response:
        async with client_of(Twin()) as client:
            return await client.post(path, content=body, headers={"Content-Type": media})

    response = asyncio.run(scenario())
    if response.status_code != 200:
        assert refusal(response)[0] in {400, 415, 422}
