"""Which version of a model is served: what there is, moving an alias, and moving it back.

An alias stands at one version; where it stood before is kept as its trail (`training.registry`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.bundle import Bundle, BundleError, load
from training.home import Home
from training.registry import (
    CHAMPION,
    ModelNotFound,
    Spelling,
    downloaded,
    found,
    keep,
    move,
    spelled,
    trail,
)
from training.tracking import TrackingError, client


class PromotionError(ValueError):
    """A version is not to be served; the message says why, and how to serve it nevertheless."""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    registered: float
    """When, in seconds since 1970."""
    run: str
    """The run that made it."""
    roc_auc: float | None
    """On its validation mails; None where it was trained on those too."""


@dataclass(frozen=True, slots=True)
class Move:
    """An alias was moved."""

    name: str
    alias: str
    before: str | None
    """The version that it stood at; None where it is new."""
    version: str


def models(home: Home) -> list[Version]:
    """All versions of all models, by name, the newest first; raises TrackingError."""
    with _registry(home) as mlflow:
        return [
            version
            for name in sorted(model.name for model in _all(mlflow.search_registered_models))
            for version in _versions(mlflow, name)
        ]


def versions(home: Home, name: str) -> list[Version]:
    """Those of one model, the newest first; raises ModelNotFound, TrackingError."""
    with _registry(home) as mlflow:
        rows = _versions(mlflow, name)
        if not rows:
            found(mlflow, Spelling(name, None))  # says which models there are
        return rows


def history(home: Home, name: str, alias: str = CHAMPION) -> list[str]:
    """The versions that an alias has stood at, the latest last; raises TrackingError."""
    with _registry(home) as mlflow:
        current = _current(mlflow, name, alias)
        return trail(mlflow, name, alias, str(current.version) if current else None)


def bundle_of(home: Home, spelling: str) -> Bundle:
    """The bundle of a version, read in full.

    Raises:
        ModelNotFound: there is no such version.
        BundleError: it cannot be used.
        TrackingError: the registry does not answer.
    """
    with _registry(home) as mlflow:
        return whole(downloaded(home, found(mlflow, spelled(spelling))))


def promote(home: Home, name: str, version: str, alias: str = CHAMPION, *, force: bool) -> Move:
    """Move an alias to a version; `force` allows other labels than those it replaces.

    Raises:
        ModelNotFound: there is no such version.
        BundleError: its bundle is damaged.
        PromotionError: its labels are others.
        TrackingError: the registry does not answer.
    """
    with _registry(home) as mlflow:
        wanted = found(mlflow, Spelling(name, version))
        current = _current(mlflow, name, alias)
        bundle = whole(downloaded(home, wanted))
        before = str(current.version) if current else None
        if current is not None and not force:
            _same_labels(bundle, home, current)
        move(mlflow, name, alias, before, str(wanted.version))
    return Move(name, alias, before, str(wanted.version))


def rollback(home: Home, name: str, alias: str = CHAMPION) -> Move:
    """Move an alias back to the version before, and one further each time.

    Raises:
        ModelNotFound: there is no such model or alias.
        PromotionError: it has stood nowhere else.
        BundleError: the version before is damaged.
        TrackingError: the registry does not answer.
    """
    with _registry(home) as mlflow:
        current = found(mlflow, Spelling(name, None, alias))
        steps = trail(mlflow, name, alias, str(current.version))[:-1]
        there = {row.version for row in _versions(mlflow, name)}
        while steps and (steps[-1] not in there or steps[-1] == str(current.version)):
            steps.pop()  # deleted since, or where it stands
        if not steps:
            raise PromotionError(
                f"{name}@{alias} has stood at no version but {current.version}; "
                f"move it with `mailray models promote {name}:VERSION`"
            )
        whole(downloaded(home, found(mlflow, Spelling(name, steps[-1]))))
        keep(mlflow, name, alias, steps)  # first: a step that was not taken is taken again
        mlflow.set_registered_model_alias(name, alias, steps[-1])
    return Move(name, alias, str(current.version), steps[-1])


def whole(path: Path) -> Bundle:
    """A bundle whose weights can be read and are numbers; raises BundleError."""
    bundle = load(path)
    for name, weight in bundle.model().state_dict().items():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise BundleError(f"{path / 'model.safetensors'} is damaged: {name} is not finite")
    return bundle


@contextmanager
def _registry(home: Home) -> Iterator[Any]:
    """MLflow's client; what it throws becomes a TrackingError."""
    mlflow = client(home)
    from mlflow.exceptions import MlflowException

    try:
        yield mlflow
    except MlflowException as error:
        raise TrackingError(f"the registry refuses: {str(error).splitlines()[0]}") from error


def _versions(mlflow: Any, name: str) -> list[Version]:
    aliases: dict[str, list[str]] = {}
    rows = []
    for model in _all(mlflow.search_registered_models, f"name = '{name}'"):
        for alias, version in model.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        rows = list(_all(mlflow.search_model_versions, f"name = '{name}'"))
    return [
        _version(row, aliases.get(str(row.version), []))
        for row in sorted(rows, key=lambda row: -int(row.version))
    ]


def _version(row: Any, aliases: list[str]) -> Version:
    try:
        auc = float(row.tags.get("roc_auc", "nan"))
    except ValueError:
        auc = math.nan
    return Version(
        name=row.name,
        version=str(row.version),
        aliases=tuple(sorted(aliases)),
        registered=row.creation_timestamp / 1000,
        run=row.tags.get("run", row.run_id or ""),
        roc_auc=None if math.isnan(auc) else auc,
    )


def _all(search: Any, *filters: str) -> Iterator[Any]:
    """Every page of a search."""
    token = None
    while True:
        page = search(*filters, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _current(mlflow: Any, name: str, alias: str) -> Any | None:
    try:
        return found(mlflow, Spelling(name, None, alias))
    except ModelNotFound:
        return None


def _same_labels(bundle: Bundle, home: Home, current: Any) -> None:
    try:
        before = load(downloaded(home, current))
    except (BundleError, TrackingError):
        return  # what cannot be read is no reason to keep it
    if (bundle.labels, bundle.head.multi) != (before.labels, before.head.multi):
        raise PromotionError(
            f"{bundle.name} version {bundle.version} has the labels {_listed(bundle)}, "
            f"version {before.version} has {_listed(before)}; --force serves it nevertheless"
        )


def _listed(bundle: Bundle) -> str:
    return ", ".join(bundle.labels) + " (any number of them)" * bundle.head.multi
