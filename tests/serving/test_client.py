"""The clients, against servers that answer otherwise than they hope."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from serving.answers import Answer, ErrorBody
from serving.client import (
    AsyncMailrayClient,
    BusyError,
    ClientError,
    Feedback,
    MailrayClient,
    RefusedError,
    UnreachableError,
)
from serving.explained import Explained
from tests.serving.twin import MAIL, MOST, TEXT, Twin, app_of
from training.mail import mail_text

REFUSED = json.dumps({"error": {"code": "not_a_mail", "message": "empty: 0 bytes of mail"}})
ANSWER: dict[str, Any] = Answer.model_config["json_schema_extra"]["examples"][0]  # type: ignore
GOOD = json.dumps(ANSWER)

Reply = tuple[int, dict[str, str], str]


@contextmanager
def server(*replies: Reply) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """One that gives these answers by turns, the last for ever; its URL, and what it was asked."""
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, dict(self.headers), body))
            status, headers, text = replies[min(len(asked), len(replies)) - 1]
            if status == 0:  # breaks off
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


Ask = Callable[..., Answer]


def sync_ask(url: str, mail: Any, **settings: Any) -> Answer:
    with MailrayClient(url, **settings) as client:
        return client.classify(mail, request_id="r-1")


def async_ask(url: str, mail: Any, **settings: Any) -> Answer:
    async def scenario() -> Answer:
        async with AsyncMailrayClient(url, **settings) as client:
            return await client.classify(mail, request_id="r-1")

    return asyncio.run(scenario())


both = pytest.mark.parametrize("ask", [sync_ask, async_ask])


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


@both
@pytest.mark.parametrize(
    ("status", "body", "words", "kind"),
    [
        (400, REFUSED, r"refuses \(400\): empty: 0 bytes of mail$", RefusedError),
        (413, "{}", r"refuses \(413\): \{\}$", RefusedError),
        (401, "", r"refuses \(401\): Unauthorized$", ClientError),
        (429, "shed by the proxy\nmore", r"refuses \(429\): shed by the proxy$", BusyError),
        (502, "", r"refuses \(502\): ", ClientError),
        (404, "[]", r"refuses \(404\): \[\]$", ClientError),
        (200, "<html>", r"no mailray server.*\(no JSON\)$", ClientError),
        (200, "{}", r"no mailray server.*\(label\)$", ClientError),
        (200, "[1]", "no mailray server", ClientError),
    ],
)
def test_a_refusal_is_one_line_in_the_servers_words(
    ask: Ask, status: int, body: str, words: str, kind: type[ClientError]
) -> None:
    with server((status, {}, body)) as (url, _), pytest.raises(kind, match=words) as caught:
        ask(url, b"", retry=False)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RefusedError) == (kind is RefusedError)


@both
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says_so(ask: Ask, status: int) -> None:
    with server((status, {"Retry-After": "1"}, ""), (200, {}, GOOD)) as (url, asked):
        start = time.monotonic()
        assert ask(url, MAIL).label == "spam"
        assert time.monotonic() - start >= 1
    assert len(asked) == 2
    first, second = (float(headers["X-Request-Timeout-Ms"]) for _, headers, _ in asked)
    assert second <= first - 1000


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with server((503, {"Retry-After": date}, ""), (200, {}, GOOD)) as (url, asked):
        start = time.monotonic()
        sync_ask(url, MAIL)
        assert time.monotonic() - start >= 0.9  # dates have whole seconds
    assert len(asked) == 2


@pytest.mark.parametrize("header", ["soon", "-1", "", "²"])
def test_a_retry_after_of_neither_kind_is_passed_over(header: str) -> None:
    replies = (503, {"Retry-After": header.encode("utf-8").decode("latin-1")}, "")
    with server(replies, (200, {}, GOOD)) as (url, _):
        assert sync_ask(url, MAIL, deadline=5).label == "spam"


@both
def test_a_server_that_wants_more_time_than_there_is_is_not_waited_for(ask: Ask) -> None:
    with server((429, {"Retry-After": "3600"}, REFUSED)) as (url, asked):
        with pytest.raises(BusyError, match="429"):
            ask(url, MAIL, deadline=30)
        assert len(asked) == 1


@both
def test_a_server_that_stays_busy_is_asked_until_the_deadline(ask: Ask) -> None:
    with server((503, {}, "")) as (url, asked), pytest.raises(BusyError, match="503"):
        ask(url, MAIL, deadline=1)
    assert 2 <= len(asked) <= 10


@both
def test_a_connection_that_breaks_is_made_anew(ask: Ask) -> None:
    with server((0, {}, ""), (0, {}, ""), (200, {}, GOOD)) as (url, asked):
        assert ask(url, MAIL).label == "spam"
    assert len(asked) == 3


@both
def test_one_that_always_breaks_is_given_up(ask: Ask) -> None:
    with server((0, {}, "")) as (url, asked):
        with pytest.raises(UnreachableError, match="broke off"):
            ask(url, MAIL)
        assert len(asked) == 4


@both
def test_what_is_wrong_with_the_mail_is_not_sent_again(ask: Ask) -> None:
    with server((400, {"Retry-After": "0"}, REFUSED)) as (url, asked):
        with pytest.raises(RefusedError) as caught:
            ask(url, MAIL)
        assert len(asked) == 1
    assert caught.value.body.error.code == "not_a_mail"


@both
def test_where_nothing_answers_it_says_how_to_start_a_server(ask: Ask) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: no other takes it meanwhile
        with pytest.raises(UnreachableError, match="`mailray serve` starts"):
            ask(f"http://127.0.0.1:{taken.getsockname()[1]}", b"")


@both
def test_a_server_that_says_nothing_is_given_up(ask: Ask) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ClientError, match=r"not answered within 0\.1 s"):
            ask(f"http://127.0.0.1:{silent.getsockname()[1]}", b"", deadline=0.1)


@both
@pytest.mark.parametrize("url", ["localhost:8000", "", "http://[::1", "ftp://a"])
def test_what_is_no_url_is_named(ask: Ask, url: str) -> None:
    with pytest.raises(ClientError, match="is no URL"):
        ask(url, b"")


@both
@pytest.mark.parametrize("token", ["", "a b", "a\nb", "é"])
def test_what_is_no_token_is_told_and_not_shown(ask: Ask, token: str) -> None:
    with pytest.raises(ClientError, match="the token is none"):
        ask("http://127.0.0.1:1", b"", token=token)


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
    example: dict[str, Any] = Explained.model_config["json_schema_extra"]["examples"][0]  # type: ignore
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
