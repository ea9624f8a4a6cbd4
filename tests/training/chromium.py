"""Headless Chromium, driven by its DevTools protocol over a pipe: no driver, no port.

with browser() as chromium:
    chromium.open(file, width=360)       # or a URL
    chromium.until("ready"), chromium.press("Tab"), chromium.type("text"), chromium.dark(True)
    chromium.value("document.title"), chromium.faults, chromium.pdf(), chromium.screenshot()
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Chromium:
    """One page."""

    def __init__(self, asked: int, answers: int) -> None:
        self._asked, self._answers = os.fdopen(asked, "wb"), os.fdopen(answers, "rb")
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.faults: list[str] = []
        """What the console said, exceptions, and what could not be loaded."""
        self.requests: list[str] = []
        """Addresses that the page asked for."""
        self.dialogs: list[str] = []
        """What the page said in dialogs, which stay open."""
        self._events: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, file: Path | str, *, width: int, height: int = 800) -> None:
        """Load a file or URL at a window's size, as a phone does where it is narrow."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self.faults.clear()
        self.requests.clear()
        self.dialogs.clear()
        self._events.clear()
        address = file if isinstance(file, str) else file.absolute().as_uri()
        self._call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._take(self._read())

    def value(self, script: str) -> Any:
        """What an expression is worth in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 30.0) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({script})"):
            assert time.monotonic() < end, (script, self.faults)
            time.sleep(0.02)

    def dark(self, on: bool) -> None:
        """What the page is told that its reader prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, *, code: int = 0, modifiers: int = 0) -> None:
        """A key of the keyboard, as `Tab` (9) or `Enter` (13); modifiers: 2 Ctrl, 8 Shift."""
        named: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **named, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **named)

    def type(self, text: str) -> None:
        """Text at the cursor."""
        self._call("Input.insertText", text=text)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False)["data"])

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._call("Browser.close")
        self._asked.close()
        self._answers.close()

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._asked.write(json.dumps(message).encode() + b"\0")
        self._asked.flush()
        while (answer := self._read()).get("id") != self._count:
            self._take(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers.fileno(), 1 << 20)
            assert more, "Chromium ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _take(self, event: dict[str, Any]) -> None:
        name, said = event.get("method", ""), event.get("params", {})
        self._events.append(name)
        if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded",
                    "Network.loadingFailed"):  # fmt: skip
            self.faults.append(json.dumps(said))
        if name == "Page.javascriptDialogOpening":
            self.dialogs.append(said["message"])
        if name == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])


@contextmanager
def browser() -> Iterator[Chromium]:
    """A browser for the time of the block, with a profile of its own."""
    asked, answers = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}"]
        # Chromium reads from descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{asked[0]} 4>&{answers[1]}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words], pass_fds=(asked[0], answers[1]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(asked[0])
        os.close(answers[1])
        try:
            chromium = Chromium(asked[1], answers[0])
            yield chromium
            chromium.close()
            process.wait(30)
        finally:
            process.kill()
            process.wait()
