"""The page in a browser, where the server wants a token, refuses, is busy or is gone."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.site import LIMIT, Site, shown, site, text
from tests.serving.visits import HAM, SPAM, drop, paste, reasoned
from tests.training import chromium


def test_a_server_that_wants_a_token_is_given_it_and_only_it(
    started: chromium.Chromium, page_server: Site
) -> None:
    page_server.token = "secret"
    started.open(page_server.url, width=1000)
    started.until("document.querySelector('#token').checkVisibility()")
    paste(started, SPAM)
    started.until("document.querySelector('#said').textContent.includes('token')")
    assert started.value("document.activeElement.id") == "token"
    started.type("wrong")
    started.press("Enter", code=13)
    started.until("document.querySelector('#fault').checkVisibility()")
    assert "this token is not known" in text(started, "#fault")
    assert page_server.seen == []
    started.value("document.querySelector('#token').focus()")
    started.type("secret")
    started.press("Enter", code=13)
    reasoned(started)
    assert text(started, "#verdict .label") == "spam"
    assert not shown(started, "#entry")
    assert not shown(started, "#fault")
    assert started.value("document.querySelector('#token').value") == ""
    started.until("document.querySelector('#model svg')")
    kept = "[Object.keys(localStorage).length, Object.keys(sessionStorage).length, document.cookie]"
    assert started.value(kept) == [0, 0, ""]
    assert all("secret" not in url for url in started.requests)


def refusal(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((429, refusal("overloaded", "8 requests are being worked on"), {"Retry-After": "3"}),
         "as much to do as it takes on. It says: 8 requests are being worked on. Try again in 3 s"),
        ((500, refusal("internal", "A fault of the server; its log has the cause."), {}),
         "The server has a fault"),
        ((503, refusal("not_ready", "the model is not ready"), {"Retry-After": "1"}), "starting"),
        ((418, {"strange": "<b>"}, {}), "The server refused (418)"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_said_in_words(
    browser: chromium.Chromium, page_server: Site, fault: Any, words: str
) -> None:
    page_server.fault = fault
    paste(browser, SPAM)
    browser.until("document.querySelector('#fault').checkVisibility()")
    assert words in text(browser, "#fault")
    assert not shown(browser, "#verdict")
    assert browser.value("document.querySelector('#classify').ariaBusy") is None
    page_server.fault = None
    paste(browser, SPAM)
    reasoned(browser)
    assert not shown(browser, "#fault")


def test_a_mail_that_is_too_large_is_said_to_be(browser: chromium.Chromium) -> None:
    paste(browser, SPAM + "x" * LIMIT)
    browser.until("document.querySelector('#fault').checkVisibility()")
    assert "too large for the server" in text(browser, "#fault")


def test_a_table_waits_for_a_server_that_is_busy(
    browser: chromium.Chromium, page_server: Site
) -> None:
    page_server.fault = (429, refusal("overloaded", "busy"), {"Retry-After": "0.2"})
    drop(browser, {"a.eml": HAM, "b.eml": SPAM})
    browser.until("document.querySelector('#mails tbody')")
    while len(page_server.seen) < 2:
        pass
    page_server.fault = None
    browser.until("document.querySelector('#said').textContent === '1 ham, 1 spam'")


def test_without_reasons_there_is_a_verdict_all_the_same(
    browser: chromium.Chromium, page_server: Site
) -> None:
    for status in (404, 501):
        page_server.explained = (status, refusal("not_explainable", "no means to explain"))
        paste(browser, SPAM)
        browser.until("document.querySelector('#reasons').innerText.includes('no reasons')")
        assert text(browser, "#verdict .label") == "spam"
        assert not shown(browser, "#fault")


def test_a_server_that_is_gone_is_said_to_be(started: chromium.Chromium, carded: Path) -> None:
    with site(carded) as page_server:
        started.open(page_server.url, width=1000)
    paste(started, SPAM)
    started.until("document.querySelector('#fault').checkVisibility()")
    assert "does not answer" in text(started, "#fault")
    with pytest.raises(httpx.ConnectError):
        httpx.get(page_server.url)
