"""What one who is at the page does: pastes a mail, drops files, waits for the reasons."""

import json

from tests.training import chromium

SPAM = "From: A <a@example.com>\nSubject: Your prize\n\nClaim the prize now, not after lunch.\n"
HAM = "From: B <b@example.org>\nSubject: Lunch\n\nAt noon?\n"


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
