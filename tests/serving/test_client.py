"""The clients: what they send, and the answers they give, from one mail to many."""

import asyncio
import json
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

from serving.answers import Answer, ErrorBody
from serving.client import AsyncMailrayClient, Feedback, MailrayClient
from serving.explained import Explained
from tests.serving.replies import ANSWER, GOOD, REFUSED, Ask, Reply, both, server
from tests.serving.twin import MAIL, MOST, TEXT, Twin, app_of
from training.mail import mail_text


@both
def test_a_mail_is_sent_as_it_is_and_the_answer_is_typed(ask: Ask) -> None:
    with server((200, {}, GOOD)) as (url, asked):
        answer = ask(f"{url}/", MAIL, token="t-1")
        fields = ask(url, {"body": "Hi"})
    assert answer == fields == Answer.model_validate(ANSWER)
    [(path, headers, body), (_, plain, second)] = asked
    assert (path, body) == ("/v1/classify", MAIL)
    assert headers["Content-Type"] == "message/rfc822"
    assert headers["Authorization"] == "Bearer t-1"
    assert headers["X-Request-ID"] == "r-1"
    assert 0 < float(headers["X-Request-Timeout-Ms"]) <= 60_000
    assert (plain["Content-Type"], json.loads(second)) == ("application/json", {"body": "Hi"})
    assert "Authorization" not in plain


@both
def test_an_answer_of_a_newer_server_is_read_as_far_as_it_is_known(ask: Ask) -> None:
    with server((200, {}, json.dumps(ANSWER | {"mood": "good"}))) as (url, _):
        assert ask(url, MAIL) == Answer.model_validate(ANSWER)


async def many(twin: Twin, mails: list[Any], **settings: Any) -> list[Answer | ErrorBody]:
    transport = httpx.ASGITransport(app_of(twin, **settings))
    async with AsyncMailrayClient("http://mailray", transport=transport) as client:
        return await client.classify_many(mails)


@pytest.mark.parametrize("most", [MOST, 64])
def test_any_number_of_mails_is_answered_in_order(most: int) -> None:
    twin = Twin()
    mails: list[Any] = [f"Subject: {number}\n\n".encode() for number in range(70)]
    mails[3], mails[40] = b"", b"\xff\xd8\xff"
    mails[10] = {"subject": "ten"}
    mails[11] = b"Subject: latin\n\n\xe9t\xe9"
    answers = asyncio.run(many(twin, mails, max_mails=most))
    assert [place for place, answer in enumerate(answers) if isinstance(answer, ErrorBody)] == [
        3,
        40,
    ]
    assert len(answers) == len(mails)
    assert {mail_text(mails[11]), "subject: ten\nfrom: \n\n"} <= set(twin.texts)
    assert len(twin.texts) == len(mails) - 2


def test_a_mail_too_large_for_the_server_harms_no_other() -> None:
    twin = Twin()
    answers = asyncio.run(many(twin, [MAIL, b"Subject: a\n\n" + b"x" * 400_000, MAIL]))
    assert [isinstance(answer, Answer) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], ErrorBody)
    assert answers[1].error.code == "too_large"


def test_no_mails_need_no_server() -> None:
    with MailrayClient("http://127.0.0.1:1") as client:
        assert client.classify_many([]) == []


def test_sync_and_async_ask_the_same() -> None:
    replies: Reply = (
        200,
        {},
        json.dumps({"answers": [ANSWER, json.loads(REFUSED)], "request_id": "r"}),
    )
    with server(replies) as (url, asked):
        with MailrayClient(url) as client:
            found = client.classify_many([MAIL, b""])
        assert [type(answer) for answer in found] == [Answer, ErrorBody]

        async def scenario() -> list[Answer | ErrorBody]:
            async with AsyncMailrayClient(url) as client:
                return await client.classify_many([MAIL, b""])

        assert asyncio.run(scenario()) == found
    assert asked[0][2] == asked[1][2]


def test_the_models_that_answer_are_listed() -> None:
    async def scenario() -> list[str]:
        transport = httpx.ASGITransport(app_of(Twin()))
        async with AsyncMailrayClient("http://mailray", transport=transport) as client:
            return [f"{model.name} {model.version} {model.role}" for model in await client.models()]

    assert asyncio.run(scenario()) == ["twin 3 champion"]


def test_feedback_names_the_answer_that_was_wrong() -> None:
    kept = {"id": "f-1", "new": True, "text_kept": True}
    with server((201, {}, json.dumps(kept))) as (url, asked), MailrayClient(url) as client:
        answer = Answer.model_validate(ANSWER)
        said = Feedback("ham", answer=answer, mail=MAIL, store_text=True)
        assert client.feedback(said).id == "f-1"
        client.feedback(Feedback(["a", "b"], message_id="<1@x>"))
    assert json.loads(asked[0][2]) == {
        "label": "ham",
        "request_id": answer.request_id,
        "mail": {"raw": MAIL.decode()},
        "consent": {"store_text": True, "train": False},
        "verdict": {"label": "spam", "probability": answer.probability},
        "model": "mailray-spam",
        "version": "3",
    }
    assert json.loads(asked[1][2]) == {
        "label": ["a", "b"],
        "message_id": "<1@x>",
        "consent": {"store_text": False, "train": False},
    }


def test_an_explanation_is_asked_for_of_a_label() -> None:
    example: dict[str, Any] = Explained.model_json_schema()["examples"][0]
    with server((200, {}, json.dumps(example))) as (url, asked), MailrayClient(url) as client:
        assert client.explain(MAIL, label="spam", top=3).top[0].text == "Claim"
        client.explain({"body": "Hi"})
    assert [path for path, _, _ in asked] == [
        "/v1/explain?top=3&label=spam",
        "/v1/explain?top=10",
    ]
    assert asked[0][2] == MAIL


def test_many_threads_may_use_one_client() -> None:
    with server((200, {}, GOOD)) as (url, asked), MailrayClient(url) as client:
        threads = [threading.Thread(target=client.classify, args=(MAIL,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(asked) == 8


def test_the_client_needs_neither_fastapi_nor_torch_nor_ray() -> None:
    code = (
        "import sys, serving.client;"
        "print(sorted({'fastapi', 'torch', 'ray', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_text_of_a_mail_sent_by_a_client_is_the_mails() -> None:
    twin = Twin()
    asyncio.run(many(twin, [MAIL]))
    assert twin.texts == [TEXT]
