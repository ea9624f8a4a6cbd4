"""The clients, against servers that refuse, are busy, break off or are not there."""

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from serving.client import BusyError, ClientError, RefusedError, UnreachableError
from tests.serving.replies import GOOD, REFUSED, Ask, both, server, sync_ask
from tests.serving.twin import MAIL


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
