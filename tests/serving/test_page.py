"""The page at /: driven in a browser, over a real server; it shows any mail and runs none."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from serving.api import build_api
from serving.routes import page
from tests.serving.site import LIMIT, Site, Twin, clean, shown, site, text
from tests.training import chromium
from training.bundle import Bundle

SPAM = "From: A <a@example.com>\nSubject: Your prize\n\nClaim the prize now, not after lunch.\n"
MINUS = "\N{MINUS SIGN}"
HAM = "From: B <b@example.org>\nSubject: Lunch\n\nAt noon?\n"
HOSTILE = """From: "<img src=x onerror=ran()>" <a@example.com>
Subject: prize \u202egpj.exe\u202c <script>ran()</script>
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<html><head><meta http-equiv="refresh" content="0;url=http://evil.example/refresh">
<base href="http://evil.example/"><link rel="stylesheet" href="http://evil.example/a.css">
<style>@import url(http://evil.example/b.css); p { background: url(//evil.example/c) }</style>
<script src="http://evil.example/a.js"></script><script>ran(); alert(1)</script></head>
<body onload="ran()" style="background: url('http://evil.example/d')">
<img src="http://evil.example/pixel.png" onerror="ran()"><svg onload="ran()"></svg>
<iframe src="http://evil.example/frame" srcdoc="<script>parent.ran()</script>"></iframe>
<form action="http://evil.example/form"><input autofocus onfocus="ran()"></form>
</textarea></script></style></title>--><script>ran()</script><a href="javascript:ran()">bank</a>
<video src="http://evil.example/v" autoplay></video><object data="http://evil.example/o"></object>
LONG </body></html>
""".replace("LONG", "prize" * 4000)
CARD = """---
license: apache-2.0
---

# Twin <script>ran()</script>

Reads `mail`, **all** of it: [the hub](https://huggingface.co/x) and [not this](javascript:ran()).

| split | value |
|---|---|
| test | <img src=x onerror=ran()> |

- one

    mailray classify
"""
CURVE = {
    "yes": 40, "no": 60,
    "roc": [[0, 0, None], [0, 30, 0.9], [6, 38, 0.4], [60, 40, 0.0]],
    "calibration": [[0.05, 0.04, 50], [0.55, 0.5, 4], [0.95, 0.97, 46]],
}  # fmt: skip
POINTS = [
    {"name": "balanced", "rate": 0.005, "threshold": 0.9, "needed": 598, "had": 600},
    {"name": "strict", "rate": 0.001, "threshold": None, "needed": 2995, "had": 600},
]
EPOCHS = [{"epoch": n, "train_loss": 0.5 / n, "val_loss": 0.6 / n} for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """A bundle with a card, curves, and a figure that is no number."""
    place: Path = tmp_path_factory.mktemp("page") / "bundle"
    copytree(bundle.path, place)
    facts = json.loads((place / "bundle.json").read_text())
    facts |= {"curves": {"spam": CURVE}, "points": POINTS, "epochs": EPOCHS}
    facts["epochs"][0]["val_recall"] = float("nan")
    (place / "bundle.json").write_text(json.dumps(facts))
    (place / "README.md").write_text(CARD)
    return place


def test_each_file_is_served_with_a_strict_policy_and_asked_about_again(carded: Path) -> None:
    files = sorted(file.name for file in page.FOLDER.iterdir())
    with TestClient(
        build_api(Twin(), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
    ) as client:
        assert page.paths() == {"/"} | {f"/page/{name}" for name in files if name != "index.html"}
        for path in page.paths():
            answer = client.get(path)
            policy = answer.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'",
                    "connect-src 'self'", "img-src 'self' data:", "base-uri 'none'",
                    "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)  # fmt: skip
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-cache"
            again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert client.head(path).status_code == 200
        assert client.get("/page/../api.py").status_code == 404
        assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_the_page_needs_nothing_from_elsewhere_and_has_nothing_inline() -> None:
    for file in page.FOLDER.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, no address
        assert not re.search(r"(src|href)=\W?(https?:)?//|@import|url\(", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    html = (page.FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", html)


def test_a_server_can_be_without_it() -> None:
    app = build_api(Twin(), max_in_flight=1, max_body_bytes=LIMIT, with_page=False)
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        assert [client.get(path).status_code for path in ("/", "/page/page.js")] == [404, 404]
        assert not any(
            "page" in path or path == "/" for path in client.get("/openapi.json").json()["paths"]
        )


def test_the_card_has_text_curves_and_no_path(carded: Path) -> None:
    with TestClient(
        build_api(Twin(carded), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
    ) as client:
        answer = client.get("/v1/models/twin/card")
        told = answer.json()
        assert (told["name"], told["version"], told["labels"]) == ("twin", "3", ["ham", "spam"])
        assert (told["text"], told["curves"]) == (CARD, {"spam": CURVE})
        assert told["points"] == POINTS
        assert told["epochs"][0]["val_recall"] is None
        assert str(carded) not in answer.text
        assert client.get("/v1/models/other/card").json()["error"]["code"] == "not_found"


def test_without_a_bundle_there_is_no_card(tmp_path: Path) -> None:
    for bundle in (None, tmp_path / "gone"):
        with TestClient(
            build_api(Twin(bundle), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
        ) as client:
            answer = client.get("/v1/models/twin/card")
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text


# In a browser


@pytest.fixture(scope="module")
def running(carded: Path) -> Iterator[Site]:
    with site(carded) as found:
        if "/v1/models" not in {getattr(route, "path", "") for route in found.app.routes}:
            found.app.add_api_route(
                "/v1/models", lambda: {"models": [{"name": "twin", "version": "3"}]}
            )
        yield found


@pytest.fixture
def server(running: Site) -> Site:
    running.token, running.fault, running.explained, running.raw = "", None, None, False
    running.findings = [
        {"section": "reply-to", "text": "Reply-To has another domain: b.example", "weight": 0.7},
        {"section": "links", "text": "1 link to evil.example", "weight": -0.2},
    ]
    running.seen.clear()
    return running


@pytest.fixture
def browser(started: chromium.Chromium, server: Site) -> chromium.Chromium:
    started.dark(False)
    started.open(server.url, width=1000)
    return started


def paste(browser: chromium.Chromium, mail: str) -> None:
    browser.value(f"document.querySelector('#text').value = {json.dumps(mail)}; 0")
    browser.value("document.querySelector('#classify').click()")


def drop(browser: chromium.Chromium, mails: dict[str, str]) -> None:
    browser.value(
        "{ const all = new DataTransfer();"
        f"for (const [name, mail] of Object.entries({json.dumps(mails)}))"
        "  all.items.add(new File([mail], name));"
        "document.querySelector('main').dispatchEvent(new DragEvent('drop',"
        "  { dataTransfer: all, bubbles: true, cancelable: true })) }"
    )


def reasoned(browser: chromium.Chromium) -> None:
    browser.until("document.querySelector('#reasons .mail')")


def test_a_pasted_mail_gets_verdict_reasons_and_latency(
    browser: chromium.Chromium, server: Site
) -> None:
    paste(browser, SPAM)
    reasoned(browser)
    assert server.seen == [
        ("/v1/classify/raw", "message/rfc822", SPAM.encode()),
        ("/v1/explain", "message/rfc822", SPAM.encode()),
    ]
    assert text(browser, "#verdict .label") == "spam"
    said = text(browser, "#verdict")
    for words in ("0.25%", "99.75%", "Operating point balanced: spam from 90.00% on",
                  "latency", "twin, version 3", "request"):  # fmt: skip
        assert words in said
    assert browser.value("document.querySelector('.fill.given').style.width") == "99.75%"
    assert browser.value("document.querySelector('.tick').style.left") == "90%"
    assert text(browser, "#said") == "spam, probability 99.75%"
    marks = browser.value(
        "[...document.querySelectorAll('mark')].map((m) => [m.textContent, m.className, m.title,"
        " getComputedStyle(m, '::before').content])"
    )
    assert ["prize", "weighed for", "+2.00 for spam", '"+"'] in marks
    assert ["lunch", "weighed against", f"{MINUS}1.60 for spam", f'"{MINUS}"'] in marks
    assert {mark[0].lower() for mark in marks} == {"prize", "claim", "lunch"}
    assert text(browser, ".mail").startswith("subject: Your prize\nfrom: A <a@example.com>")
    assert "Reply-To has another domain: b.example +0.70" in text(browser, ".findings")
    assert "2 times" in text(browser, "#reasons table")
    clean(browser, server)


def test_text_without_header_lines_is_sent_as_a_body(
    browser: chromium.Chromium, server: Site
) -> None:
    paste(browser, "Dear Sir: a prize\n\nGrüße")
    reasoned(browser)
    assert "Read as plain text" in text(browser, "#verdict")
    head, body = server.seen[0][2].decode().split("\n\n", 1)
    assert (head, body) == ("Content-Type: text/plain; charset=utf-8", "Dear Sir: a prize\n\nGrüße")
    clean(browser, server)


def test_a_verdict_that_is_unsure_says_what_that_means(browser: chromium.Chromium) -> None:
    paste(browser, "Subject: maybe\n\nmaybe")
    reasoned(browser)
    assert "spam is more probable, but the operating point gives ham" in text(browser, "#verdict")
    assert text(browser, "#said").endswith("unsure")


def test_a_dropped_file_is_sent_byte_for_byte(browser: chromium.Chromium, server: Site) -> None:
    drop(browser, {"a.eml": HAM})
    reasoned(browser)
    assert server.seen[0][2] == HAM.encode()
    assert text(browser, "#verdict .label") == "ham"
    assert "a.eml" in text(browser, "#verdict")
    clean(browser, server)


def test_several_files_give_a_table_and_each_its_reasons(
    browser: chromium.Chromium, server: Site
) -> None:
    drop(browser, {"good.eml": HAM, "bad.eml": SPAM, "empty.eml": " ", "<b>x\u202e.eml": SPAM})
    browser.until("document.querySelector('#said').textContent.includes('2 spam')")
    assert text(browser, "#said") == "1 ham, 2 spam, 1 without a verdict"
    rows = browser.value(
        "[...document.querySelectorAll('#mails tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.innerText))"
    )
    assert [row[:3] for row in rows[:2]] == [
        ["good.eml", "ham", "98.00%"], ["bad.eml", "spam", "99.75%"],
    ]  # fmt: skip
    assert rows[2][1].startswith("This is no mail that can be read.")
    assert rows[3][0] == "<b>xU+202E.eml"
    browser.value("document.querySelectorAll('#mails tbody button')[1].click()")
    reasoned(browser)
    assert text(browser, "#verdict .label") == "spam"
    assert shown(browser, "#mails")


def test_the_keyboard_reaches_all_and_ctrl_enter_classifies(
    browser: chromium.Chromium, server: Site
) -> None:
    browser.until("document.querySelector('#model details')")
    browser.press("Tab", code=9)
    assert browser.value("document.activeElement.id") == "text"
    browser.type(SPAM)
    browser.press("Enter", code=13, modifiers=2)
    reasoned(browser)
    assert text(browser, "#said") == "spam, probability 99.75%"
    visited = []
    for _ in range(40):
        browser.press("Tab", code=9)
        one = browser.value(
            "{ const on = document.activeElement;"
            "  const box = on.closest('.picker')?.querySelector('label');"
            "  [on.id || on.className || on.localName,"
            "   getComputedStyle(box ?? on).outlineStyle, document.hasFocus()] }"
        )
        if one[0] in ("body", "text"):
            break
        visited.append(one[0])
        assert one[1] in ("solid", "auto"), one
    assert visited[:3] == ["classify", "files", "clear"]
    assert {"mail", "wide", "summary"} <= set(visited)
    clean(browser, server)


@pytest.mark.parametrize("raw", [True, False])
def test_a_hostile_mail_is_shown_and_does_nothing(
    browser: chromium.Chromium, server: Site, raw: bool
) -> None:
    browser.value(
        "window.ran = () => { window.harmed = true };"
        "window.broken = []; addEventListener('securitypolicyviolation',"
        " (event) => window.broken.push(event.violatedDirective)); 0"
    )
    before = browser.value("[document.scripts.length, document.forms.length]")
    server.raw = raw
    server.findings = [{"section": "from", "text": HOSTILE, "weight": 1.0}]
    paste(browser, HOSTILE)
    reasoned(browser)
    drop(browser, {HOSTILE[:60]: HOSTILE, "\u202e</td><script>ran()</script>": HOSTILE})
    browser.until("document.querySelector('#said').textContent === '2 spam'")
    browser.value("document.querySelector('#mails tbody button').click()")
    browser.until("document.querySelector('#reasons .mail')")
    if raw:
        assert "<script>ran(); alert(1)</script>" in text(browser, ".mail")
        assert "prize U+202Egpj.exeU+202C" in text(browser, ".mail")
    assert browser.value("[window.harmed, window.broken]") == [None, []]
    assert browser.value("[document.scripts.length, document.forms.length]") == before
    strange = "img, iframe, object, video, style, base, meta[http-equiv], main a, svg[onload]"
    assert browser.value(f"document.querySelectorAll({strange!r}).length") == 1  # the card's link
    assert browser.value("location.href") == f"{server.url}/"
    clean(browser, server)
    api = [url for url in browser.requests if "/v1/" in url]
    assert {url.removeprefix(server.url) for url in api} <= {
        "/v1/models", "/v1/models/twin/card", "/v1/drift", "/v1/classify/raw", "/v1/explain",
    }  # fmt: skip


def test_the_card_is_shown_as_text_with_its_curves(
    browser: chromium.Chromium, server: Site
) -> None:
    browser.until("document.querySelectorAll('#model svg').length === 4")
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    said = text(browser, "#model")
    assert "Twin <script>ran()</script>" in said
    assert "[not this](javascript:ran())" in said
    assert "license" not in said
    assert browser.value("[...document.querySelectorAll('#model a')].map((a) => a.href)") == [
        "https://huggingface.co/x"
    ]
    assert browser.value("document.querySelectorAll('#model article :is(li, pre, td)').length") == 4
    assert "100 test mails, 40 of them spam" in said
    dots = browser.value("[...document.querySelectorAll('circle title')].map((t) => t.textContent)")
    assert dots == ["balanced", "50 mails", "4 mails", "46 mails"]
    assert "NaN" not in browser.value("document.querySelector('#model').innerHTML")
    assert text(browser, "#served") == "serves twin, version 3"
    clean(browser, server)


_CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const one of colours) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const of = node.parentElement;
    if (!node.data.trim() || !of.checkVisibility() || of.closest('noscript, .unseen')) continue;
    const under = [];
    for (let one = of; one; one = one.parentElement)
      under.unshift(getComputedStyle(one).backgroundColor);
    const style = getComputedStyle(of), ink = of.closest('svg') ? style.fill : style.color;
    const [back, front] = [light(over(under)), light(over([...under, ink]))];
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    if (ratio < 4.5) low.push([node.data.slice(0, 40), ratio, ink, under.join()]);
  }
  return low;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_is_readable_in_the_light_and_in_the_dark(
    started: chromium.Chromium, server: Site, dark: bool
) -> None:
    started.dark(dark)
    started.open(server.url, width=360, height=640)
    started.until("document.querySelectorAll('#model svg').length === 4")
    server.raw = True
    drop(started, {f"{'long' * 40}.eml": SPAM, "other.eml": HAM})
    started.until("document.querySelector('#said').textContent === '1 spam, 1 ham'")
    started.value("document.querySelector('#mails tbody button').click()")
    started.until("document.querySelector('#reasons .mail')")
    paste(started, f"Subject: maybe prize\n\n{'claim' * 3000} prize")
    started.until("document.querySelector('#reasons .mail')?.innerText.includes('maybe')")
    started.value(
        "document.querySelectorAll('details').forEach((one) => { one.open = true });"
        "for (const one of document.querySelectorAll('#entry, #mails, #fault')) one.hidden = false;"
        "document.querySelector('#fault').textContent = 'x'"
    )
    assert started.value("document.documentElement.scrollWidth") == 360
    background = started.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 22, 22)") is dark
    assert started.value(_CONTRAST) == []
    assert len(started.screenshot()) > 20_000
    clean(started, server)


def test_a_server_that_wants_a_token_is_given_it_and_only_it(
    started: chromium.Chromium, server: Site
) -> None:
    server.token = "secret"
    started.open(server.url, width=1000)
    started.until("document.querySelector('#token').checkVisibility()")
    paste(started, SPAM)
    started.until("document.querySelector('#said').textContent.includes('token')")
    assert started.value("document.activeElement.id") == "token"
    started.type("wrong")
    started.press("Enter", code=13)
    started.until("document.querySelector('#fault').checkVisibility()")
    assert "this token is not known" in text(started, "#fault")
    assert server.seen == []
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
    browser: chromium.Chromium, server: Site, fault: Any, words: str
) -> None:
    server.fault = fault
    paste(browser, SPAM)
    browser.until("document.querySelector('#fault').checkVisibility()")
    assert words in text(browser, "#fault")
    assert not shown(browser, "#verdict")
    assert browser.value("document.querySelector('#classify').ariaBusy") is None
    server.fault = None
    paste(browser, SPAM)
    reasoned(browser)
    assert not shown(browser, "#fault")


def test_a_mail_that_is_too_large_is_said_to_be(browser: chromium.Chromium) -> None:
    paste(browser, SPAM + "x" * LIMIT)
    browser.until("document.querySelector('#fault').checkVisibility()")
    assert "too large for the server" in text(browser, "#fault")


def test_a_table_waits_for_a_server_that_is_busy(browser: chromium.Chromium, server: Site) -> None:
    server.fault = (429, refusal("overloaded", "busy"), {"Retry-After": "0.2"})
    drop(browser, {"a.eml": HAM, "b.eml": SPAM})
    browser.until("document.querySelector('#mails tbody')")
    while len(server.seen) < 2:
        pass
    server.fault = None
    browser.until("document.querySelector('#said').textContent === '1 ham, 1 spam'")


def test_without_reasons_there_is_a_verdict_all_the_same(
    browser: chromium.Chromium, server: Site
) -> None:
    for status in (404, 501):
        server.explained = (status, refusal("not_explainable", "no means to explain"))
        paste(browser, SPAM)
        browser.until("document.querySelector('#reasons').innerText.includes('no reasons')")
        assert text(browser, "#verdict .label") == "spam"
        assert not shown(browser, "#fault")


def test_a_server_that_is_gone_is_said_to_be(started: chromium.Chromium, carded: Path) -> None:
    with site(carded) as server:
        started.open(server.url, width=1000)
    paste(started, SPAM)
    started.until("document.querySelector('#fault').checkVisibility()")
    assert "does not answer" in text(started, "#fault")
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)
