"""The log of a replica: one JSON object a line, for each request and for what went wrong.

{"time": "2026-11-26T16:40:01.123Z", "level": "info", "event": "request", "replica": "43qe9u2w",
 "request_id": "5f0c", "method": "POST", "route": "/v1/classify", "status": 200, "ms": 24.1, ...}

A thread writes it, so that a slow disk keeps no request waiting; lines that it cannot take are
dropped, and counted. Each replica has a file of its own, which is turned over when it is large;
files of replicas that are long gone are removed. Nothing in it is of a mail's content, nor an
address of a caller, a query, or a path that is no route.
"""

import datetime as dt
import json
import logging
import queue
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from serving.account import Account, account
from serving.errors import described
from training.schema import ConfigError

_BYTES: Final = 20_000_000
"""Of a file; some 60,000 requests."""
_FILES: Final = 5
"""That a replica keeps."""
_DAYS: Final = 14
"""After so many days without a line a file is removed."""
_WAITING: Final = 10_000
"""Lines that wait for the disk."""
_FEW: Final = 4
"""Mails of a request that may wait with it."""
_PATIENCE_S: Final = 2.0
"""How long the end waits for the last of them."""
_OURS: Final = ("serving", "training")
"""The packages whose own log it takes, too."""


def make(folder: Path) -> None:
    """Make the directory of logs, if it is not there.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"log: {folder} cannot be written ({error.strerror}); log=DIR takes another "
            "directory, log=none writes none"
        ) from error


class Log:
    """A replica's log, until `close`; one in a process.

    Raises:
        ConfigError: nothing can be written there.
    """

    def __init__(self, folder: Path, replica: str) -> None:
        make(folder)
        self.file = folder / f"serve-{replica}.jsonl"
        self.file.touch()
        _sweep(folder)
        self._lines = _Lines()
        out = _File(self.file, maxBytes=_BYTES, backupCount=_FILES - 1, encoding="utf-8")
        out.setFormatter(_Json(replica))
        self._listener = _Writer(self._lines.queue, out)
        self._listener.start()
        self._out = out
        self._open = True
        for name in _OURS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(self._lines)
            if logging.lastResort is not None:  # warnings go to standard error, as without a log
                logger.addHandler(logging.lastResort)

    def request(self, account: Account) -> None:
        """Write the line of a request that has ended."""
        # The rest is for the thread that writes; but many mails would fill memory while they wait.
        told = _request(account) if len(account.mails) > _FEW else account
        self._lines.enqueue(_Ended(account.at, account.status, told))

    def close(self) -> None:
        """Write what waits, if the disk takes it soon."""
        if not self._open:
            return
        self._open = False
        for name in _OURS:
            logging.getLogger(name).removeHandler(self._lines)
            if logging.lastResort is not None:
                logging.getLogger(name).removeHandler(logging.lastResort)
        ending = threading.Thread(target=self._end, daemon=True)
        ending.start()
        ending.join(_PATIENCE_S)

    def _end(self) -> None:
        self._listener.stop()
        self._out.close()


class _Lines(QueueHandler):
    """Hands records to the thread that writes; never waits."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Any]
        super().__init__(queue.Queue(_WAITING))
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # Here, where it is known which request is worked on.
        record.request_id = account().request_id
        return record

    def enqueue(self, record: "logging.LogRecord | _Ended") -> None:
        try:
            if self._dropped:  # told first: where there is room for one line, it is this one
                self.queue.put_nowait(_lost(self._dropped))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1


def _lost(lines: int) -> logging.LogRecord:
    said = "%d lines were dropped: the disk is too slow"
    return logging.LogRecord(__name__, logging.WARNING, "", 0, said, (lines,), None)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A request that has ended: its account, or already what is to be told of it."""

    at: float
    status: int
    told: Account | dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """What is told of it."""
        return self.told if isinstance(self.told, dict) else _request(self.told)


class _Writer(QueueListener):
    """The thread that writes."""

    def prepare(self, record: logging.LogRecord | _Ended) -> logging.LogRecord:
        if isinstance(record, logging.LogRecord):
            return record
        level = logging.WARNING if record.status >= 500 else logging.INFO
        made = logging.LogRecord("serving.requests", level, "", 0, "request", None, None)
        made.ended = record
        return made

    def enqueue_sentinel(self) -> None:
        """Also where the queue is full: what waits is written first."""
        self.queue.put(None)  # type: ignore[attr-defined]  # it is a queue.Queue


class _File(RotatingFileHandler):
    """A file that, where it cannot be written, says so once, and not each line once more.

    One that somebody has removed is begun anew: to the others, who sweep, a replica that is never
    asked looks as if it were gone.
    """

    _said = False

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        if self.stream is not None and not Path(self.baseFilename).exists():
            self.stream.close()
            self.stream = self._open()
        return bool(super().shouldRollover(record))

    def doRollover(self) -> None:
        super().doRollover()
        _sweep(Path(self.baseFilename).parent)

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._said:
            self._said = True
            kind = type(sys.exc_info()[1]).__name__
            print(f"the log {self.baseFilename} cannot be written: {kind}", file=sys.stderr)  # noqa: T201


class _Json(logging.Formatter):
    """A record as one line."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        told: _Ended | None = getattr(record, "ended", None)
        at = dt.datetime.fromtimestamp(told.at if told else record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": "request" if told else "message",
            "replica": self._replica,
        }
        line |= told.facts() if told else _message(record)
        return json.dumps(line)  # ASCII: no terminal or log shipper is led astray


def _request(told: Account) -> dict[str, Any]:
    labels: Counter[str] = Counter()
    for mail in told.mails:
        labels.update(mail.scored.verdict.labels or ("none",))
    optional = {
        "code": told.code,
        "caller": told.caller,
        "tries": told.tries if told.tries > 1 else None,
        "mails": len(told.mails),
        "mails_refused": len(told.refused),
        "labels": dict(labels),
        "unsure": sum(mail.scored.verdict.unsure for mail in told.mails),
        "trace_id": told.trace_id,
    }
    if told.model:
        answered = told.mails[0].scored.verdict if told.mails else told
        optional |= {"model": answered.model, "version": answered.version}
    return {
        "request_id": told.request_id,
        "method": told.method,
        "route": told.route,
        "status": told.status,
        "ms": round(told.seconds * 1000, 1),
        "bytes": told.bytes_in,
        **{name: value for name, value in optional.items() if value},
    }


def _message(record: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
    if request_id := getattr(record, "request_id", ""):
        line["request_id"] = request_id
    if record.exc_info and (error := record.exc_info[1]):
        line["error"] = described(error)  # its message may quote a mail
    return line


def _sweep(folder: Path) -> None:
    """Remove the files of replicas that are long gone."""
    oldest = time.time() - _DAYS * 86_400
    for file in folder.glob("serve-*.jsonl*"):
        with suppress(OSError):  # another replica has removed it
            if file.stat().st_mtime < oldest:
                file.unlink()
