"""Following an alias: what is served when it moves, and what when something is wrong."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.challenger import ChallengerConfig
from serving.config import ServeConfig
from serving.journal import Entry, Journal
from serving.lineup import Lineup
from serving.watch import ChallengerWatch, Watch, follow
from tests.serving.engines import Twin
from training.bundle import BundleError
from training.home import Home
from training.registry import ModelNotFound, Spelling
from training.tracking import TrackingError

CHAMPION = Spelling("twin", None)


class Registry:
    """Aliases that stand at versions, and versions that are broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aliases: dict[str, str] = {"champion": "1"}
        self.broken: set[str] = set()
        self.down = False
        self.made: list[str] = []
        self.again: list[Twin] = []

    def look_up(self, wanted: Spelling) -> tuple[str, Callable[[], Path]]:
        if self.down:
            raise TrackingError("MLflow at sqlite does not answer: no route\nmore")
        version = wanted.version or self.aliases.get(wanted.alias)
        if version is None:
            raise ModelNotFound(f"no model {wanted} is registered")
        return version, lambda: self.place(version)

    def place(self, version: str) -> Path:
        path = self.folder / version
        path.mkdir(exist_ok=True)
        return path

    def make(self, path: Path) -> Twin:
        if path.name in self.broken:
            raise BundleError(f"{path.name} is damaged")
        self.made.append(path.name)
        return Twin(path.name)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "models/twin/champion.jsonl", "r1")


@pytest.fixture
def watch(registry: Registry, journal: Journal) -> Watch:
    return Watch(CHAMPION, journal, registry.look_up, registry.make)


def test_a_moved_alias_is_followed_and_written_down(
    registry: Registry, journal: Journal, watch: Watch
) -> None:
    lineup = watch.first()
    registry.aliases["champion"] = "2"
    watch.look(lineup)
    watch.look(lineup)
    assert registry.made == ["1", "2"]
    facts = lineup.facts()
    assert (facts.model.version, facts.follows) == ("2", "twin@champion")
    assert (facts.wanted, facts.fault) == (None, None)
    assert [(e.event, e.version, e.replica) for e in journal.entries()] == [
        ("serves", "1", "r1"),
        ("serves", "2", "r1"),
    ]


def test_a_bundle_that_cannot_be_used_leaves_the_old_one_and_is_told(
    registry: Registry, watch: Watch, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineup = watch.first()
    registry.aliases["champion"] = "2"
    registry.broken.add("2")
    for _ in range(3):
        watch.look(lineup)
    facts = lineup.facts()
    assert (facts.model.version, facts.wanted) == ("1", "2")
    assert facts.fault == "twin:2 is not served: 2 is damaged"
    assert [e.event for e in journal.entries()] == ["serves", "refuses"]
    registry.aliases["champion"] = "1"
    watch.look(lineup)
    assert (lineup.facts().wanted, lineup.facts().fault) == (None, None)
    registry.aliases["champion"] = "2"
    watch.look(lineup)
    registry.broken.clear()
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)  # it is tried again after a while
    watch.look(lineup)
    assert (lineup.model.version, lineup.facts().fault) == ("2", None)


@pytest.mark.parametrize("absent", [False, True])
def test_a_registry_that_is_down_or_empty_changes_nothing(
    registry: Registry, watch: Watch, absent: bool
) -> None:
    lineup = watch.first()
    if absent:
        registry.aliases.clear()
    else:
        registry.down = True
    watch.look(lineup)
    facts = lineup.facts()
    assert facts.model.version == "1"
    assert facts.fault is not None
    assert "\n" not in facts.fault
    registry.down, registry.aliases = False, {"champion": "1"}
    watch.look(lineup)
    assert lineup.facts().fault is None
    assert registry.made == ["1"]


@pytest.mark.parametrize("down", [False, True])
def test_a_replica_that_starts_then_serves_what_was_served_last(
    registry: Registry, journal: Journal, watch: Watch, down: bool
) -> None:
    lineup = watch.first()
    registry.aliases["champion"] = "2"
    watch.look(lineup)
    if down:
        registry.down = True
    else:
        registry.aliases["champion"] = "3"
        registry.broken.add("3")
    second = Watch(CHAMPION, Journal(journal.file, "r2"), registry.look_up, registry.make)
    facts = second.first().facts()
    assert facts.model.version == "2"
    assert facts.wanted == (None if down else "3")
    assert facts.fault is not None


def test_the_first_replica_of_all_has_nothing_to_fall_back_on(
    registry: Registry, watch: Watch
) -> None:
    registry.broken.add("1")
    with pytest.raises(BundleError, match="1 is damaged"):
        watch.first()
    registry.down = True
    with pytest.raises(TrackingError):
        watch.first()


def test_a_journal_that_was_cut_off_or_cannot_be_written_stops_nothing(
    registry: Registry, watch: Watch, journal: Journal, tmp_path: Path
) -> None:
    watch.first()
    with journal.file.open("a") as file:
        file.write('{"event": "ser')
    last = journal.last_served()
    assert last is not None
    assert last.version == "1"
    (tmp_path / "file").write_text("")
    blocked = Journal(tmp_path / "file" / "champion.jsonl", "r1")
    assert Watch(CHAMPION, blocked, registry.look_up, registry.make).first().ready
    assert blocked.entries() == []


def test_directories_and_versions_are_served_for_ever(registry: Registry, tmp_path: Path) -> None:
    place = registry.place("5")
    config = ServeConfig(model=str(place), watch_s=0.01)
    lineup, watchman = follow(
        config, Home(tmp_path), registry.make, "r1", registry.look_up, registry.make
    )
    assert watchman is None
    assert (lineup.model.version, lineup.facts().follows) == ("5", None)


def test_a_thread_follows_alias_and_challenger(registry: Registry, tmp_path: Path) -> None:
    registry.aliases["next"] = "2"
    challenger = ChallengerConfig(model="twin@next")
    config = ServeConfig(model="twin", watch_s=0.01, challenger=challenger)
    lineup, watchman = follow(
        config, Home(tmp_path), registry.make, "r1", registry.look_up, registry.make
    )
    assert watchman is not None
    try:
        assert answering(lineup) == ("1", "2")
        registry.aliases |= {"champion": "3", "next": "4"}
        until = time.monotonic() + 120
        while answering(lineup) != ("3", "4"):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        watchman.stop()


def answering(lineup: Lineup) -> tuple[str, str | None]:
    """The versions of champion and challenger."""
    challenger = lineup.challenger
    return lineup.model.version, None if challenger is None else challenger.model.version


class TestChallenger:
    @pytest.fixture
    def lineup(self, registry: Registry) -> Lineup:
        registry.aliases["next"] = "2"
        return Lineup(Twin("1"))

    def watch(
        self, registry: Registry, tmp_path: Path, replica: str = "r1", terms: str = ""
    ) -> ChallengerWatch:
        journal = Journal(tmp_path / "models/twin/challenger.next.jsonl", replica, terms)
        spelling = Spelling("twin", None, "next")
        config = ChallengerConfig(model="twin@next")
        return ChallengerWatch(spelling, journal, registry.look_up, registry.make, config)

    def test_one_that_a_replica_has_ended_is_ended_by_all_and_stays_so(
        self, registry: Registry, tmp_path: Path, lineup: Lineup
    ) -> None:
        other = Lineup(Twin("1"))
        mine = self.watch(registry, tmp_path)
        others = self.watch(registry, tmp_path, "r2")
        mine.look(lineup)
        others.look(other)
        assert lineup.challenger is not None
        assert other.challenger is not None
        lineup.challenger.stop("9 errors in 9 mails")
        mine.look(lineup)
        others.look(other)
        assert other.challenger.off == "9 errors in 9 mails"
        later = Lineup(Twin("1"))
        self.watch(registry, tmp_path, "r3").look(later)
        assert later.facts().challenger_fault == "twin:2 is off: 9 errors in 9 mails"
        self.watch(registry, tmp_path, "r4", terms="other limits").look(later)
        assert later.challenger is not None
        registry.aliases["next"] = "3"
        mine.look(lineup)
        assert lineup.challenger.off is None
        assert lineup.facts().challenger_fault is None

    def test_one_that_cannot_be_used_is_told_and_harms_nobody(
        self, registry: Registry, tmp_path: Path, lineup: Lineup
    ) -> None:
        registry.broken.add("2")
        self.watch(registry, tmp_path).look(lineup)
        assert lineup.challenger is None
        assert lineup.facts().challenger_fault == "twin:2 is off: 2 is damaged"
        assert lineup.ready

    def test_the_champion_is_no_challenger_until_it_is_champion_no_more(
        self, registry: Registry, tmp_path: Path, lineup: Lineup
    ) -> None:
        registry.aliases["next"] = "1"
        watch = self.watch(registry, tmp_path)
        watch.look(lineup)
        assert lineup.facts().challenger_fault == "twin:1 is off: it is the champion"
        lineup.replace(Twin("3"))
        watch.look(lineup)
        assert lineup.challenger is not None
        assert lineup.challenger.model.version == "1"

    def test_one_that_was_promoted_and_rolled_back_is_tried_again(
        self, registry: Registry, tmp_path: Path, lineup: Lineup
    ) -> None:
        watch = self.watch(registry, tmp_path)
        watch.look(lineup)
        lineup.replace(Twin("2"))
        watch.look(lineup)
        assert lineup.facts().challenger_fault == "twin:2 is off: it is the champion"
        lineup.replace(Twin("1"))
        watch.look(lineup)
        assert answering(lineup) == ("1", "2")

    def test_a_registry_that_is_down_leaves_it_where_it_is(
        self, registry: Registry, tmp_path: Path, lineup: Lineup
    ) -> None:
        watch = self.watch(registry, tmp_path)
        watch.look(lineup)
        registry.down = True
        watch.look(lineup)
        assert lineup.challenger is not None
        assert lineup.challenger.off is None


def test_entries_are_lines_that_other_programs_can_read(journal: Journal) -> None:
    journal.write("serves", "3", Path("/models/3"))
    [line] = journal.file.read_text().splitlines()
    assert Entry(**json.loads(line)).path == "/models/3"
