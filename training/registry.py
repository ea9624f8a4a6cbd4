"""The registry: bundles under a name, numbered, served by the alias `champion`."""

import json
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.home import Home
from training.tracking import TrackingError, client

CHAMPION: Final = "champion"
_TRAIL: Final = "trail"
_LONGEST_TRAIL: Final = 100
_SPELLING: Final = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<alias>[\w-]+)|:(?P<version>\d{1,9}))?")


class ModelNotFound(ValueError):
    """No model is registered under that name, version or alias."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """`NAME`, `NAME@ALIAS` or `NAME:VERSION`, taken apart."""

    name: str
    version: str | None
    """None: the alias says which, and may say another tomorrow."""
    alias: str = CHAMPION

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else f"{self.name}@{self.alias}"


def spelled(text: str) -> Spelling:
    """What a spelling says; `NAME` alone is its champion.

    Raises:
        ModelNotFound: it is none.
    """
    match = _SPELLING.fullmatch(text)
    if match is None:
        raise ModelNotFound(
            f"{text}: neither a bundle directory nor NAME, NAME@ALIAS or NAME:VERSION"
        )
    return Spelling(match["name"], match["version"], match["alias"] or CHAMPION)


def is_name(text: str) -> bool:
    """Whether a model can be called so: it is a directory, and part of a spelling."""
    match = _SPELLING.fullmatch(text)
    return match is not None and match["name"] == text and text.strip(".") != ""


def resolve(home: Home, spelling: str) -> Path:
    """The bundle directory of `name`, `name@alias` or `name:version` (`name` is its champion).

    It is downloaded once for each version; its `bundle.json` then carries the registry's version.

    Raises:
        ModelNotFound: the spelling is wrong, or there is no such model.
        TrackingError: the registry does not answer.
    """
    _, place = look_up(home, spelled(spelling))
    return place()


def found(mlflow: Any, wanted: Spelling) -> Any:
    """MLflow's record of a version; raises ModelNotFound, TrackingError."""
    from mlflow.exceptions import MlflowException

    try:
        version = (
            _version(mlflow, wanted.name, wanted.version)
            if wanted.version
            else _by_alias(mlflow, wanted.name, wanted.alias)
        )
        if version is not None:
            return version
        known = sorted(model.name for model in mlflow.search_registered_models())
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"the registry does not tell of {wanted}: {str(error).splitlines()[0]}"
        ) from error
    raise ModelNotFound(
        f"no model {wanted} is registered; there are: {', '.join(known) or 'none'}. "
        "Train one with `mailray train`, or name a bundle directory"
    )


def look_up(home: Home, wanted: Spelling) -> tuple[str, Callable[[], Path]]:
    """The version that a spelling stands for now, and how to get its bundle directory.

    Raises:
        ModelNotFound: there is no such model.
        TrackingError: the registry does not answer; the second part raises it, too.
    """
    version = found(client(home), wanted)
    return str(version.version), lambda: downloaded(home, version)


def trail(mlflow: Any, name: str, alias: str, current: str | None) -> list[str]:
    """The versions that an alias has stood at, the latest last, which is `current`.

    It is kept in a tag of the model. Where somebody has moved the alias without telling, the trail
    goes on from where it was.
    """
    tags = mlflow.get_registered_model(name).tags
    known = str(tags.get(f"{_TRAIL}.{alias}", "")).split()
    return known if current is None or known[-1:] == [current] else [*known, current]


def move(mlflow: Any, name: str, alias: str, before: str | None, version: str) -> None:
    """Set an alias, and keep where it stood; the trail first, so that no step can be missed."""
    steps = trail(mlflow, name, alias, before)
    if steps[-1:] != [version]:
        steps.append(version)
    keep(mlflow, name, alias, steps)
    mlflow.set_registered_model_alias(name, alias, version)


def keep(mlflow: Any, name: str, alias: str, steps: list[str]) -> None:
    """Write an alias's trail down."""
    mlflow.set_registered_model_tag(name, f"{_TRAIL}.{alias}", " ".join(steps[-_LONGEST_TRAIL:]))


def champion_of(mlflow: Any, name: str) -> Any | None:
    """MLflow's record of the champion, if there is one."""
    return _by_alias(mlflow, name, CHAMPION)


def _version(mlflow: Any, name: str, version: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version(name, version)
    except MlflowException as error:
        if not _absent(error):
            raise
        return None


def _by_alias(mlflow: Any, name: str, alias: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if not _absent(error):
            raise
        return None


def _absent(error: Any) -> bool:
    """Whether a registry that answers says that there is nothing."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def downloaded(home: Home, version: Any) -> Path:
    """The bundle directory of MLflow's record of a version; raises TrackingError."""
    name = str(version.name)
    # The run id tells apart the first version of this registry from the first of another.
    place = home.models / name / f"{version.version}-{version.run_id[:8]}"
    if place.is_dir():
        return place
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    scratch = place.with_name(f".{place.name}-{uuid.uuid4().hex[:8]}")
    scratch.mkdir(parents=True)
    try:
        # Its URI is an argument: MLflow's own setter puts it into the environment for good.
        got = Path(
            mlflow.artifacts.download_artifacts(
                version.source, dst_path=str(scratch), tracking_uri=home.tracking_uri
            )
        )
        facts = got / "bundle.json"
        facts.write_text(
            json.dumps(
                json.loads(facts.read_text("utf-8")) | {"version": str(version.version)}, indent=2
            ),
            "utf-8",
        )
        try:
            got.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(
            f"{name} version {version.version} cannot be downloaded: {reason}"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place
