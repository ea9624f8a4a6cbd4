"""Drift at a glance, on the page: what moved, how far, and whether that can be chance."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.drift import Drift
from tests.serving.references import INFO, made, stream
from tests.serving.site import Site, clean, shown, site, text
from tests.training.chromium import Chromium
from training.bundle import Bundle

VIEW = "document.querySelector('#drift svg')"


@pytest.fixture(scope="module")
def running(bundle: Bundle) -> Iterator[Site]:
    with site(bundle.path) as found:
        yield found


@pytest.fixture
def server(running: Site) -> Site:
    running.token, running.twin.drift = "", None
    return running


def opened(
    browser: Chromium, server: Site, mails: int, *, spam: float = 0.3, width: int = 1000
) -> None:
    """The page of a server that has answered so many mails."""
    drift = Drift(made(), INFO)
    for mail in stream(mails, 3, spam=spam):
        drift.note(*mail)
    server.twin.drift = drift
    browser.dark(False)
    browser.open(server.url, width=width)
    browser.until("document.querySelector('#drift').checkVisibility()")


def test_what_moved_is_seen_at_a_glance(started: Chromium, server: Site) -> None:
    opened(started, server, 800, spam=0.6)
    assert text(started, "#drift .state") == "drift: a large change"
    note = text(started, "#drift .note")
    assert "800 mails of the last 24 hours" in note
    assert "beside 1,200 validation and test mails" in note
    titles = started.value("[...document.querySelectorAll('#drift h3')].map((h) => h.textContent)")
    assert titles == ["Probability of spam: drift", "Length in tokens: steady", "Label: drift"]
    assert started.value(f"{VIEW}.querySelectorAll('rect').length") == 20
    captions = started.value(
        "[...document.querySelectorAll('#drift figcaption')].map((c) => c.textContent)"
    )
    assert captions[0].startswith("PSI 0.")
    assert "; on average 5" in captions[0]
    assert "tokens, was" in captions[1]
    clean(started, server)


def test_bars_are_as_long_as_their_shares(started: Chromium, server: Site) -> None:
    opened(started, server, 800, spam=0.6)
    [shift] = [each for each in _told(server) if each["quantity"] == "label"]
    widths = started.value(
        "[...document.querySelectorAll('#drift svg')].at(-1).querySelectorAll('rect')"
        ".values().map((bar) => Number(bar.getAttribute('width'))).toArray()"
    )
    shares = [share for each in shift["bins"] for share in (each["here"], each["reference"])]
    for width, share in zip(widths, shares, strict=True):
        assert width / max(widths) == pytest.approx(share / max(shares), abs=0.01)


def test_it_is_told_in_words_and_numbers_too(started: Chromium, server: Site) -> None:
    opened(started, server, 800, spam=0.6)
    label = started.value("[...document.querySelectorAll('#drift svg')].at(-1).ariaLabel")
    assert label.startswith("Label: drift. ")
    assert "spam: 59.5%, was 29.9%" in label
    started.value("document.querySelector('#drift summary').focus()")
    started.press("Enter", code=13)
    started.until("document.querySelector('#drift table').checkVisibility()")
    assert "chance alone is beyond" in text(started, "#drift details")
    rows = started.value(
        "[...document.querySelectorAll('#drift table')].map((t) => t.tBodies[0].rows.length)"
    )
    assert rows == [len(each["bins"]) for each in _told(server)]
    clean(started, server)


def test_few_mails_say_how_many_are_needed(started: Chromium, server: Site) -> None:
    opened(started, server, 12)
    assert text(started, "#drift .state") == "too few mails yet (have 12, need 364)"
    opened(started, server, 0)
    assert text(started, "#drift .state") == "too few mails yet (have 0, need 364)"
    assert started.value(VIEW) is None
    clean(started, server)


def test_without_a_reference_there_is_nothing(started: Chromium, server: Site) -> None:
    started.open(server.url, width=1000)
    started.until("document.querySelector('#served').textContent.includes('twin')")
    assert not shown(started, "#drift")
    clean(started, server)


def test_it_comes_with_the_token(started: Chromium, server: Site) -> None:
    server.token = "secret"
    server.twin.drift = Drift(made(), INFO)
    started.open(server.url, width=1000)
    started.until("document.querySelector('#entry').checkVisibility()")
    assert not shown(started, "#drift")
    started.value("document.querySelector('#token').focus()")
    started.type("secret")
    started.press("Enter", code=13)
    started.until("document.querySelector('#drift').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_bars_stand_out(started: Chromium, server: Site, dark: bool) -> None:
    opened(started, server, 800, spam=0.6, width=360)
    started.dark(dark)
    assert started.value("document.documentElement.scrollWidth") <= 360
    over = started.value(
        "[...document.querySelectorAll('#drift svg text, #drift svg rect')].filter((part) => {"
        " const box = part.getBoundingClientRect(); return box.left < 0 || box.right > 360 })"
        ".map((part) => part.textContent)"
    )
    assert over == []
    colours = started.value(
        "['.here', '.reference'].map((kind) => getComputedStyle(document.querySelector(kind)).fill)"
        ".concat(getComputedStyle(document.body).backgroundColor)"
    )
    here, reference, paper = map(_luminance, colours)
    for bar in (here, reference):
        light, low = max(bar, paper), min(bar, paper)
        assert (light + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11
    clean(started, server)


def _told(server: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/v1/drift").json()["quantities"]
    return found


def _luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, as WCAG 2.2 has it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
