"""The journal of an alias: which version each replica served from when on, and what it refused.

One file beside the models, `models/NAME/ALIAS.jsonl`, with a line for each change. It says which
version was the last that could be served, which a replica needs that starts while the registry is
down or the alias stands at a broken bundle; and it tells all replicas of a challenger that one of
them has ended.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change in one replica."""

    event: Literal["serves", "refuses", "ends"]
    version: str
    replica: str
    path: str = ""
    """The bundle's directory."""
    reason: str = ""
    terms: str = ""
    """Of a challenger that has ended: under which config."""
    time: float = 0.0
    """In seconds since 1970."""


class Journal:
    """The changes of one alias, by all replicas."""

    def __init__(self, file: Path, replica: str, terms: str = "") -> None:
        """`terms` are those of a challenger: what ended under others may be tried under these."""
        self.file = file
        self._replica = replica
        self._terms = terms

    def write(
        self,
        event: Literal["serves", "refuses", "ends"],
        version: str,
        path: Path | None = None,
        reason: str = "",
    ) -> None:
        """Add a line; where the disk cannot take it, the log has it alone."""
        entry = Entry(
            event, version, self._replica, str(path or ""), reason, self._terms, time.time()
        )
        line = json.dumps(asdict(entry))
        logger.warning("%s: %s", self.file.stem, line)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")  # one write of one line: replicas do not mix theirs
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.file, error.strerror)

    def entries(self) -> list[Entry]:
        """All that can be read, the oldest first."""
        try:
            lines = self.file.read_text("utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Entry(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # cut off when a disk was full
        return found

    def last_served(self) -> Entry | None:
        """The version that began to serve last, if its directory is still there."""
        for entry in reversed(self.entries()):
            if entry.event == "serves" and Path(entry.path).is_dir():
                return entry
        return None

    def ended(self, version: str) -> str | None:
        """Why a replica has ended the challenger of that version, if one has.

        One that another version was tried after, or that has other terms now, may be tried again.
        """
        for entry in reversed(self.entries()):
            if entry.version == version and entry.event == "ends":
                return entry.reason if entry.terms == self._terms else None
            if entry.version != version and entry.event == "serves":
                return None
        return None
