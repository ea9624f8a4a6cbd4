"""The page in a browser, over a real server: its verdicts; it shows any mail and runs none."""

import pytest

from tests.serving.site import Site, clean, shown, text
from tests.serving.visits import HAM, SPAM, drop, paste, reasoned
from tests.training import chromium

MINUS = "\N{MINUS SIGN}"
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


def test_a_pasted_mail_gets_verdict_reasons_and_latency(
    browser: chromium.Chromium, page_server: Site
) -> None:
    paste(browser, SPAM)
    reasoned(browser)
    assert page_server.seen == [
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
    clean(browser, page_server)


def test_text_without_header_lines_is_sent_as_a_body(
    browser: chromium.Chromium, page_server: Site
) -> None:
    paste(browser, "Dear Sir: a prize\n\nGrüße")
    reasoned(browser)
    assert "Read as plain text" in text(browser, "#verdict")
    head, body = page_server.seen[0][2].decode().split("\n\n", 1)
    assert (head, body) == ("Content-Type: text/plain; charset=utf-8", "Dear Sir: a prize\n\nGrüße")
    clean(browser, page_server)


def test_a_verdict_that_is_unsure_says_what_that_means(browser: chromium.Chromium) -> None:
    paste(browser, "Subject: maybe\n\nmaybe")
    reasoned(browser)
    assert "spam is more probable, but the operating point gives ham" in text(browser, "#verdict")
    assert text(browser, "#said").endswith("unsure")


def test_a_dropped_file_is_sent_byte_for_byte(
    browser: chromium.Chromium, page_server: Site
) -> None:
    drop(browser, {"a.eml": HAM})
    reasoned(browser)
    assert page_server.seen[0][2] == HAM.encode()
    assert text(browser, "#verdict .label") == "ham"
    assert "a.eml" in text(browser, "#verdict")
    clean(browser, page_server)


def test_several_files_give_a_table_and_each_its_reasons(
    browser: chromium.Chromium, page_server: Site
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
    browser: chromium.Chromium, page_server: Site
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
    clean(browser, page_server)


def test_what_is_cleared_or_asked_anew_leaves_nothing_of_the_mail_before(
    browser: chromium.Chromium, page_server: Site
) -> None:
    paste(browser, SPAM)
    reasoned(browser)
    drop(browser, {"good.eml": HAM, "bad.eml": SPAM})
    assert browser.value("document.querySelector('.mail')") is None
    browser.until("document.querySelector('#said').textContent.includes('1 spam')")
    browser.value("document.querySelector('#mails tbody button').click()")
    reasoned(browser)
    browser.value("document.querySelector('#clear').click()")
    said = browser.value("document.querySelector('main').textContent")
    assert "good.eml" not in said
    assert "prize" not in said
    assert browser.value("document.querySelector('#text').value") == ""
    clean(browser, page_server)


@pytest.mark.parametrize("raw", [True, False])
def test_a_hostile_mail_is_shown_and_does_nothing(
    browser: chromium.Chromium, page_server: Site, raw: bool
) -> None:
    browser.value(
        "window.ran = () => { window.harmed = true };"
        "window.broken = []; addEventListener('securitypolicyviolation',"
        " (event) => window.broken.push(event.violatedDirective)); 0"
    )
    before = browser.value("[document.scripts.length, document.forms.length]")
    page_server.raw = raw
    page_server.findings = [{"section": "from", "text": HOSTILE, "weight": 1.0}]
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
    assert browser.value("location.href") == f"{page_server.url}/"
    clean(browser, page_server)
    api = [url for url in browser.requests if "/v1/" in url]
    assert {url.removeprefix(page_server.url) for url in api} <= {
        "/v1/models", "/v1/models/twin/card", "/v1/drift", "/v1/classify/raw", "/v1/explain",
    }  # fmt: skip


def test_the_card_is_shown_as_text_with_its_curves(
    browser: chromium.Chromium, page_server: Site
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
    clean(browser, page_server)


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
    started: chromium.Chromium, page_server: Site, dark: bool
) -> None:
    started.dark(dark)
    started.open(page_server.url, width=360, height=640)
    started.until("document.querySelectorAll('#model svg').length === 4")
    page_server.raw = True
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
    clean(started, page_server)
