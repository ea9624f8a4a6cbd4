"""The record of a study: `study.json`, which says what it is; and who may go on with it."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from training.config import TrainConfig
from training.home import Home
from training.run import RunNameError
from training.schema import ConfigError, validate
from tuning.config import StudyConfig, parted

STUDY_FILE = "study.json"
_AMENDING = Lock()
LATER = ("trials", "budget", "concurrent", "retrain")
"""What may be changed of a study that goes on."""


@dataclass(frozen=True, slots=True)
class Record:
    """What `study.json` says."""

    path: Path
    study: StudyConfig
    config: TrainConfig
    tracked: str | None = None
    """Its run id in MLflow."""
    done: bool = False

    def write(self) -> None:
        """Put the file in place as a whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        facts = asdict(self) | {
            "study": self.study.model_dump(mode="json", by_alias=True),
            "config": self.config.model_dump(mode="json"),
        }
        del facts["path"]
        scratch = self.path / f".{STUDY_FILE}"
        scratch.write_text(json.dumps(facts, indent=2), "utf-8")
        scratch.replace(self.path / STUDY_FILE)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Of the study in a directory.

        Raises:
            RunNameError: there is none.
        """
        try:
            facts = json.loads((path / STUDY_FILE).read_text("utf-8"))
            study = StudyConfig.model_validate(facts.pop("study"))
            return cls(path, study, TrainConfig.model_validate(facts.pop("config")), **facts)
        except FileNotFoundError as error:
            raise RunNameError(f"no study {path.name} in {path.parent}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunNameError(f"{path / STUDY_FILE} cannot be read: {error}") from error


def amend(path: Path, **changes: Any) -> None:
    """Change some of what the study's file says; the tracker's thread does so too."""
    with _AMENDING:
        replace(Record.read(path), **changes).write()


def new_study(home: Home, study: StudyConfig, config: TrainConfig, name: str | None) -> Record:
    """A study that is not there yet.

    Raises:
        RunNameError: it is there.
    """
    path = home.runs / (name or f"study-{study.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if path.exists():
        raise RunNameError(
            f"study {path.name} exists; go on with --resume {path.name}, or choose another --name"
        )
    return Record(path, study, config)


def known_study(
    home: Home,
    name: str,
    overrides: Sequence[str] = (),
    given: tuple[StudyConfig, TrainConfig] | None = None,
) -> Record:
    """A study to go on with, to its end or, with more `trials` or budget, beyond it.

    `given` are the configs of a command that says them once more, overrides included.

    Raises:
        RunNameError: there is none of that name, or nothing is left to do.
        ConfigError: what its trials have in common would change.
    """
    record = Record.read(home.runs / name)
    if given is not None:
        study, config = given
        same = {key: getattr(study, key) for key in LATER}
        if config != record.config or record.study.model_copy(update=same) != study:
            raise ConfigError(
                f"study {name} was started with another config; go on with --resume {name} alone"
            )
    else:
        own, rest = parted(overrides)
        wrong = [*rest, *(o for o in own if o.partition("=")[0].split(".")[0] not in LATER)]
        if wrong:
            raise ConfigError(
                f"{', '.join(wrong)}: a study that goes on keeps its config; only "
                f"{', '.join(LATER)} may be changed"
            )
        tree = record.study.model_dump(mode="json", by_alias=True)
        study = validate(StudyConfig, tree, own)
    if record.done and study == record.study:
        raise RunNameError(f"study {name} is finished; add to it as in --resume {name} trials=20")
    return replace(record, study=study, done=False)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else runs this study."""
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunNameError(f"study {path.name} is run by another command now") from error
        yield
