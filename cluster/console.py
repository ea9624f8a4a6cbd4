"""Where a command speaks: progress on the terminal, one result on stdout, all else in a log file.

    with Console.open("train", json_output=False, logs=Path(".mailray/logs")) as console:
        with console.stage("tokens") as stage:
            stage.update("1200 of 6000 mails", done=1200, total=6000)
        console.result("test ROC AUC 0.998", {"roc_auc": 0.998})

Ray, native libraries and child processes write to file descriptors 1 and 2 whatever Python does.
So the descriptors themselves point at the log file while the console is open, and only the
console holds copies of the real ones.
"""

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import typer
from rich.console import Console as RichConsole
from rich.console import ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.text import Text

PLAIN_INTERVAL = 30.0
"""Seconds between two progress lines of a stage where stderr is no terminal."""
BAR = 24
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger(__name__)


class Stage:
    """One part of a command, one line of the terminal."""

    def __init__(self, console: "Console", name: str) -> None:
        self.name = name
        self.text = ""
        self.done: float | None = None
        self.total: float | None = None
        self._console = console
        self._started = self._shown = time.monotonic()

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Replace the text, and with `total` the bar."""
        self.text, self.done, self.total = text, done, total
        now = time.monotonic()
        if not self._console.live and now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            self._console.note(self.summary())

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self._console.note(text)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def summary(self) -> str:
        """The line without decoration: name, text, seconds."""
        return "  ".join(part for part in (self.name, self.text, f"{self.seconds:.1f} s") if part)

    def line(self, width: int) -> Text:
        """The live line, cut to `width` in its text, so that the seconds stay in sight."""
        frame = SPINNER[int(time.monotonic() * 10) % len(SPINNER)]
        start = Text.assemble((frame, "cyan"), " ", (self.name, "bold"), "  ")
        if self.done is not None and self.total and width >= 2 * BAR:
            share = min(max(self.done / self.total, 0.0), 1.0)
            full = round(share * BAR)
            start.append("━" * full, "cyan").append("━" * (BAR - full), "dim")
            start.append(f" {share:4.0%}  ")
        end = f"  {self.seconds:.0f} s"
        text = Text(" ".join(self.text.split()), no_wrap=True)
        text.truncate(max(width - start.cell_len - len(end) - 1, 0), overflow="ellipsis")
        line = start.append_text(text).append(end, "dim")
        line.no_wrap = True
        line.truncate(max(width - 1, 1))
        return line


class Console:
    """The terminal and stdout of one command; made by `open`."""

    def __init__(
        self, *, json_output: bool, log_path: Path, out: IO[str], terminal: IO[str]
    ) -> None:
        self.log_path = log_path
        self.json_output = json_output
        # Whoever reads a pipe wants whole paths, not cells folded to an imagined terminal.
        self._out = _Screen(out) if out.isatty() else _Screen(out, width=1000)
        self._terminal = _Screen(terminal)
        self.live = self._terminal.is_terminal and not self._terminal.is_dumb_terminal
        self._stages: list[Stage] = []
        self._lock = threading.RLock()
        self._display: Live | None = None

    @classmethod
    @contextmanager
    def open(cls, command: str, *, json_output: bool, logs: Path) -> Iterator[Self]:
        """Take the descriptors 1 and 2 until the end of the block.

        An exception that nobody expected becomes one line, with its traceback in the log.
        """
        logs.mkdir(parents=True, exist_ok=True)
        path = logs / f"{command}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        with _redirected(path) as (out, terminal), _logging(path):
            console = cls(json_output=json_output, log_path=path, out=out, terminal=terminal)
            try:
                yield console
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                logger.exception("unexpected")
                reason = " ".join(str(error).split()) or "no reason given"
                console.fail(
                    f"unexpected {type(error).__name__}: {_cut(reason, 300)}\n"
                    f"the traceback is in {path}",
                    1,
                )
            finally:
                console._finish_all(failed=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A live line for the time of the block, then a final one with its seconds."""
        stage = Stage(self, name)
        with self._lock:
            self._stages.append(stage)
            if not self.live:
                self.note(f"{name} ...")
            elif self._display is None:
                self._display = Live(
                    get_renderable=self._lines,
                    console=self._terminal,
                    refresh_per_second=5,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._display.start()
        try:
            yield stage
        except BaseException:
            self._finish(stage, failed=True)
            raise
        self._finish(stage, failed=False)

    def note(self, text: RenderableType) -> None:
        """A line on the terminal that stays, or a table, above any live one."""
        _show(self._terminal, text)

    def ask(self, question: str) -> bool:
        """Whether a person at the terminal says yes; no, where there is none."""
        if not (self.live and sys.stdin.isatty()):
            return False
        with self._lock:
            if self._display is not None:  # it would write over the question
                self._display.stop()
                self._display = None
        self._terminal.print(f"{question} [y/N] ", end="")
        try:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        except KeyboardInterrupt:
            return False

    def result(self, human: RenderableType, data: Mapping[str, Any]) -> None:
        """The one thing that goes to stdout: `human`, or `data` as one JSON object.

        Plain strings are printed as they are: square brackets are no markup.
        """
        if self.json_output:
            self._out.print(json.dumps(_plain(data), allow_nan=False), soft_wrap=True)
        else:
            _show(self._out, human)

    def fail(self, message: str, code: int) -> NoReturn:
        """End the command: one red line for each line of `message`, SystemExit with `code`."""
        self._finish_all(failed=True)
        for line in message.splitlines():
            self.note(Text(f"mailray: {line}", style="red"))
        logger.error("exit code %d: %s", code, message)
        if self.json_output:
            self.result("", {"error": {"message": message, "code": code}})
        raise SystemExit(code)

    def _lines(self) -> RenderableType:
        width = self._terminal.width
        return Group(*(stage.line(width) for stage in list(self._stages)))

    def _finish_all(self, *, failed: bool) -> None:
        for stage in reversed(list(self._stages)):
            self._finish(stage, failed=failed)

    def _finish(self, stage: Stage, *, failed: bool) -> None:
        with self._lock:
            if stage not in self._stages:  # `fail` inside of the block has ended it
                return
            self._stages.remove(stage)
            if not self._stages and self._display is not None:
                self._display.stop()
                self._display = None
        if self.live:
            mark = ("✗ ", "red") if failed else ("✓ ", "green")
            self.note(Text.assemble(mark, stage.summary()))
        else:
            self.note(f"{stage.summary()}{'  failed' if failed else ''}")


class _Screen(RichConsole):
    """A rich console on one stream, and on no other."""

    def __init__(self, stream: IO[str], width: int = 80) -> None:
        super().__init__(
            file=stream, width=width, height=25, markup=False, emoji=False, highlight=False
        )

    @property
    def size(self) -> ConsoleDimensions:
        # Rich asks descriptors 0 to 2 for their size; two of them are the log file now.
        try:
            columns, lines = os.get_terminal_size(self.file.fileno())
        except OSError:
            return super().size
        return ConsoleDimensions(columns or 80, lines or 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        raise AttributeError("the size is the terminal's own")

    def on_broken_pipe(self) -> None:
        # Rich would point descriptor 1, here the log file, at /dev/null and exit with 1.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), self.file.fileno())


def _show(screen: _Screen, human: RenderableType) -> None:
    """Print lines unfolded; and a table as wide as the terminal, or as it is itself, elsewhere."""
    if isinstance(human, str | Text):
        screen.print(human, soft_wrap=True)
    elif screen.is_terminal:
        screen.print(human)
    else:
        natural = Measurement.get(screen, screen.options, human).maximum
        screen.print(human, width=max(80, natural))


@contextmanager
def _redirected(path: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Descriptors 1 and 2 to a file; yields streams on what they were."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams = [os.fdopen(os.dup(fd), "w", errors="backslashreplace") for fd in (1, 2)]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield streams[0], streams[1]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, stream in zip((1, 2), streams, strict=True):
            try:
                stream.flush()
            except BrokenPipeError:
                with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                    os.dup2(nowhere.fileno(), stream.fileno())
            os.dup2(stream.fileno(), fd)
            stream.close()


@contextmanager
def _logging(path: Path) -> Iterator[None]:
    """Log records and Python's warnings to the file, with times."""
    root = logging.getLogger()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


def _plain(value: Any) -> Any:
    """What JSON can say: no NaN, no paths, no NumPy scalars."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
