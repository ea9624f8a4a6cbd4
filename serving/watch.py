"""The watch: a replica's model follows its alias in the registry.

A thread asks every few seconds where the alias stands. When it has moved, the new bundle is loaded
and scores a first mail beside the old model, which answers meanwhile; only then does it take the
old one's place. A bundle that cannot be used changes nothing but what is told, and is tried again
later, as a full disk or too little memory may be the cause. Nor does a registry that is down.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from serving.challenger import ChallengerConfig
from serving.config import ServeConfig
from serving.journal import Journal
from serving.lineup import IS_CHAMPION, ClosableEngine, Lineup
from training.home import Home
from training.registry import Spelling, spelled

AGAIN_S: Final = 60.0
"""A bundle that could not be used is tried again after so many seconds."""

Make = Callable[[Path], ClosableEngine]
"""An engine over a bundle that has scored a first mail; raises what is wrong with the bundle."""

LookUp = Callable[[Spelling], tuple[str, Callable[[], Path]]]
"""As `training.registry.look_up`."""

logger = logging.getLogger(__name__)


class Watch:
    """Keeps the model of a lineup at the version of an alias; `look` is one round."""

    def __init__(self, spelling: Spelling, journal: Journal, look_up: LookUp, make: Make) -> None:
        self.spelling = spelling
        self.journal = journal
        self._look_up = look_up
        self._make = make
        self._refused: tuple[str, float] | None = None
        self._faults: str | None = None

    def look(self, lineup: Lineup) -> None:
        """Ask the registry once, and follow it."""
        try:
            version, place = self._look_up(self.spelling)
            lineup.checked = time.time()
        except Exception as error:  # whatever it is, the model that answers goes on
            self._tell(lineup, line(error))
            return
        if version == lineup.model.version:
            self._refused = None
            lineup.wanted = None
            self._tell(lineup, None)
            return
        lineup.wanted = version
        if self._refused and self._refused[0] == version and time.monotonic() < self._refused[1]:
            return
        try:
            path = place()
            lineup.replace(self._make(path))
        except Exception as error:
            self._refused = version, time.monotonic() + AGAIN_S
            reason = f"{self.spelling.name}:{version} is not served: {line(error)}"
            self.journal.write("refuses", version, reason=line(error))
            self._tell(lineup, reason)
            return
        self.journal.write("serves", version, path)
        lineup.wanted = None
        self._tell(lineup, None)

    def first(self) -> Lineup:
        """A lineup at the alias's version, or at the one that was served last.

        Raises:
            ModelNotFound, TrackingError, BundleError: neither can be served.
        """
        places: list[tuple[str, Callable[[], Path]]] = []
        first: Exception | None = None
        wanted: str | None = None
        try:
            places.append(self._look_up(self.spelling))
            wanted = places[0][0]
        except Exception as error:
            first = error
        if (last := self.journal.last_served()) is not None and last.version != wanted:
            places.append((last.version, lambda: Path(last.path)))
        for version, place in places:
            try:
                path = place()
                engine = self._make(path)
            except Exception as error:
                first = first or error
                continue
            lineup = Lineup(engine, follows=str(self.spelling))
            lineup.checked = time.time() if wanted else None
            if first is not None:
                lineup.wanted = wanted
                self._refused = (wanted, time.monotonic() + AGAIN_S) if wanted else None
                self._tell(lineup, f"{self.spelling.name}:{version} is served: {line(first)}")
            self.journal.write("serves", version, path)
            return lineup
        assert first is not None
        raise first

    def _tell(self, lineup: Lineup, fault: str | None) -> None:
        if fault != self._faults and fault is not None:
            logger.warning("%s: %s", self.spelling, fault)
        self._faults = lineup.fault = fault


class ChallengerWatch:
    """Keeps the challenger at the version of its alias, and ends it where any replica has."""

    def __init__(
        self,
        spelling: Spelling,
        journal: Journal,
        look_up: LookUp,
        make: Make,
        config: ChallengerConfig,
    ) -> None:
        self.spelling = spelling
        self.journal = journal
        self._look_up = look_up
        self._make = make
        self._config = config
        self._tried: str | None = None

    def look(self, lineup: Lineup) -> None:
        """Ask the registry once, and follow it."""
        challenger, tried = lineup.challenger, self._tried
        if challenger is not None and challenger.off == IS_CHAMPION:
            tried = None  # it may be tried again when it is that no more
        elif challenger is not None and challenger.off and tried and not self.journal.ended(tried):
            self.journal.write("ends", tried, reason=challenger.off)
        try:
            version, place = self._look_up(self.spelling)
        except Exception as error:
            if challenger is None:
                lineup.challenger_fault = line(error)
            return
        reason = self.journal.ended(version)
        if version == tried:
            if reason and challenger is not None:
                challenger.stop(reason)  # another replica has seen enough
            return
        lineup.challenge(None, self._config)
        if version == lineup.model.version:
            self._tried, reason = None, IS_CHAMPION
        else:
            self._tried = version
        lineup.challenger_fault = reason and f"{self.spelling.name}:{version} is off: {reason}"
        if reason:
            return
        try:
            path = place()
            lineup.challenge(self._make(path), self._config)
        except Exception as error:
            lineup.challenger_fault = f"{self.spelling.name}:{version} is off: {line(error)}"
            self.journal.write("ends", version, reason=line(error))
            return
        self.journal.write("serves", version, path)


class Watchman:
    """The thread that looks, every few seconds, until `stop`."""

    def __init__(
        self, lineup: Lineup, watches: Sequence[Watch | ChallengerWatch], every_s: float
    ) -> None:
        self._lineup = lineup
        self._watches = watches
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a bundle that is being loaded is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            for watch in self._watches:
                try:
                    watch.look(self._lineup)
                except Exception:  # the thread must outlive it: nobody would miss it
                    logger.exception("%s could not be followed", watch.spelling)


def line(error: Exception) -> str:
    """What a person needs to know of an error, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def follow(
    config: ServeConfig, home: Home, make: Make, replica: str, look_up: LookUp, try_out: Make
) -> tuple[Lineup, Watchman | None]:
    """The lineup of a replica that starts, and who keeps it up to date.

    `make` loads a bundle that answers, `try_out` a challenger.

    A directory is served for ever, an alias is followed. Where the registry is down, or has a
    bundle that cannot be used, the replica starts with what was served last.

    Raises:
        ModelNotFound, TrackingError, BundleError: there is nothing to serve.
    """
    watches: list[Watch | ChallengerWatch] = []
    if Path(config.model).is_dir():
        lineup = Lineup(make(Path(config.model)))
    else:
        wanted = spelled(config.model)
        file = home.models / wanted.name / f"{wanted.alias}.jsonl"
        watch = Watch(wanted, Journal(file, replica), look_up, make)
        lineup = watch.first()
        watches.append(watch)
    if config.challenger.model is not None:
        tried = spelled(config.challenger.model)
        name = f"challenger.{tried.version or tried.alias}.jsonl"
        terms = config.challenger.model_dump_json(exclude={"model"})
        journal = Journal(home.models / tried.name / name, replica, terms)
        second = ChallengerWatch(tried, journal, look_up, try_out, config.challenger)
        second.look(lineup)
        watches.append(second)
    if not watches or not config.watch_s:
        return lineup, None
    return lineup, Watchman(lineup, watches, config.watch_s)
