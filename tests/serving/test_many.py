"""Many mails in one request: each answer in its place, and no mail harmed by another."""

import asyncio
import json
from typing import Any

import pytest

from serving.errors import ApiError
from tests.serving.twin import JSON, MAIL, MOST, TEXT, Send, Twin, app_of, client_of, refusal


def test_each_answer_stands_at_its_mails_place(send: Send, twin: Twin) -> None:
    mails = [{"body": "one"}, {"raw": ""}, {"raw": MAIL.decode()}, 4, {"subject": 5}]
    response = send("POST", "/v1/classify", json={"mails": mails}, headers={"X-Request-ID": "r-1"})
    assert response.status_code == 200
    body = response.json()
    assert body["request_id"] == "r-1"
    assert [set(answer) == {"error"} for answer in body["answers"]] == [
        False, True, False, True, True,
    ]  # fmt: skip
    assert [answer["error"]["code"] for answer in body["answers"] if "error" in answer] == [
        "not_a_mail",
        "invalid_fields",
        "invalid_fields",
    ]
    assert body["answers"][0]["label"] == "ham"
    assert body["answers"][2]["request_id"] == "r-1"
    assert twin.texts == ["subject: \nfrom: \n\none", TEXT]


def test_none_of_them_need_be_good(send: Send, twin: Twin) -> None:
    response = send("POST", "/v1/classify", json={"mails": [{}, {"raw": " "}]})
    assert response.status_code == 200
    assert [answer["error"]["code"] for answer in response.json()["answers"]] == [
        "invalid_fields",
        "not_a_mail",
    ]
    assert twin.texts == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"mails": []}, "mails: a list of 1 to 5 mails, got 0"),
        ({"mails": [{"body": "Hi"}] * (MOST + 1)}, "mails: a list of 1 to 5 mails, got 6"),
        ({"mails": {"body": "Hi"}}, "mails: a list of 1 to 5 mails, got no list"),
        ({"mails": None}, "got no list"),
        ({"mails": [{"body": "Hi"}], "body": "Hi"}, "'body': no such field"),
        ([{"body": "Hi"}], "must be an object"),
    ],
)
def test_what_is_wrong_with_the_whole_is_422(send: Send, twin: Twin, body: Any, words: str) -> None:
    status, code, message = refusal(send("POST", "/v1/classify", json=body))
    assert (status, code) == (422, "invalid_fields")
    assert words in message
    assert twin.texts == []


def test_a_field_given_twice_in_one_of_them_is_wrong_with_the_whole(send: Send) -> None:
    body = b'{"mails": [{"body": "Hi"}, {"body": "Hi", "body": "Ho"}]}'
    response = send("POST", "/v1/classify", content=body, headers=JSON)
    assert refusal(response)[2] == "'body': given more than once"


@pytest.mark.parametrize("code", ["overloaded", "not_ready", "deadline_exceeded"])
def test_what_the_server_cannot_do_fails_the_request(send: Send, twin: Twin, code: Any) -> None:
    twin.fault = ApiError(code, "no")
    response = send("POST", "/v1/classify", json={"mails": [{"body": "a"}, {"body": "b"}]})
    assert refusal(response)[1] == code


def test_the_others_are_given_up_when_one_fails(twin: Twin) -> None:
    async def failing(text: str, *, deadline: float | None = None) -> Any:
        if text.endswith("a"):
            raise ApiError("overloaded", "no")
        return await Twin.classify(twin, text, deadline=deadline)

    async def scenario() -> None:
        twin.go.clear()
        twin.classify = failing  # type: ignore[method-assign]
        async with client_of(app_of(twin)) as client:
            body = {"mails": [{"body": "b"}, {"body": "a"}, {"body": "c"}]}
            response = await client.post("/v1/classify", json=body)
        assert refusal(response)[1] == "overloaded"
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert (len(twin.texts), twin.given_up) == (2, 2)


def test_a_request_of_many_takes_one_permit_and_gives_it_back(twin: Twin) -> None:
    async def scenario() -> None:
        async with client_of(app_of(twin, max_in_flight=1)) as client:
            for _ in range(3):
                body = json.dumps({"mails": [{"body": "a"}, {"raw": ""}]})
                response = await client.post("/v1/classify", content=body, headers=JSON)
                assert response.status_code == 200

    asyncio.run(scenario())
