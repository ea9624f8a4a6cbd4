"""The study config: a search space over the keys of a training config, and how it is searched.

searcher: bayes
trials: 8
space:
  optimizer.lr: {loguniform: [1e-5, 5e-4]}
  batching.size: {choice: [8, 16, 32]}
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from training.config import TrainConfig, resolve
from training.schema import ConfigError, Section, read_yaml, recipe_file, validate

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "bayes"


class Axis(Section):
    """One key's values; exactly one of the four."""

    uniform: tuple[float, float] | None = None
    """Low and high."""
    loguniform: tuple[float, float] | None = None
    """Low and high, both positive."""
    choice: tuple[Any, ...] | None = None
    """Values to draw from."""
    grid: tuple[Any, ...] | None = None
    """Values to try every one of; for the searcher `grid` alone."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in Axis.model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"space: exactly one of {', '.join(Axis.model_fields)} for each key, "
                f"got {', '.join(given) or 'none'}"
            )
        for low, high in filter(None, (self.uniform, self.loguniform)):
            if not low < high or (self.loguniform and low <= 0):
                raise ValueError(
                    f"space: {given[0]} needs low < high{', above 0' if self.loguniform else ''}, "
                    f"got {low:g}, {high:g}"
                )
        if (values := self.choice or self.grid) is not None and not values:
            raise ValueError(f"space: {given[0]} needs at least one value")
        return self

    @property
    def examples(self) -> Sequence[Any]:
        """Values that the training config must accept."""
        return self.choice or self.grid or self.uniform or self.loguniform or ()


class StudyConfig(Section):
    """What is searched, how, and for how long."""

    recipe: str = "custom"
    """The recipe it came from; names the study."""
    train: str = "spam-minilm"
    """The training recipe that each trial starts from."""
    searcher: Literal["grid", "random", "bayes"] = "bayes"
    """Every combination, random points, or Optuna's tree-structured Parzen estimator."""
    space: dict[str, Axis] = Field(min_length=1)
    """Training config keys and their values."""
    trials: int = Field(default=8, ge=1)
    """How many points; `grid` tries every combination instead."""
    concurrent: int = Field(default=1, ge=1)
    """Trials at once, where the cluster has room for them."""
    metric: Literal["val_loss", "val_f1", "val_accuracy", "val_roc_auc"] = "val_loss"
    """Of a trial's best epoch; the loss is minimized, the others are maximized."""
    seed: int = 0
    """Of the searcher."""

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        for key, axis in self.space.items():
            if (axis.grid is not None) != (self.searcher == "grid"):
                kinds = "grid" if self.searcher == "grid" else "uniform, loguniform or choice"
                raise ValueError(f"space.{key}: searcher {self.searcher} takes {kinds} alone")
        return self

    @property
    def mode(self) -> Literal["min", "max"]:
        """Which direction is better."""
        return "min" if self.metric == "val_loss" else "max"

    @property
    def points(self) -> int:
        """How many trials there will be."""
        if self.searcher == "grid":
            return prod(len(axis.grid or ()) for axis in self.space.values())
        return self.trials


def resolve_study(
    *, recipe: str | None = None, file: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[StudyConfig, TrainConfig]:
    """The study of a recipe or a YAML file, and the training config that its trials start from.

    Overrides whose key is the study's (`trials=4`) change the study, all others the training.

    Raises:
        ConfigError: all faults of both together; keys and values of the space are checked too.
    """
    if file is None:
        name = recipe or DEFAULT_RECIPE
        tree = {"recipe": name} | read_yaml(recipe_file(name, RECIPES))
    else:
        tree = {"recipe": file.stem} | read_yaml(file)
    own = [text for text in overrides if text.partition("=")[0].split(".")[0] in _OWN]
    rest = [text for text in overrides if text not in own]
    faults: list[str] = []
    study: StudyConfig | None = None
    train: TrainConfig | None = None
    try:
        study = validate(StudyConfig, tree, own)
    except ConfigError as error:
        faults.append(str(error))
    try:
        train = resolve(recipe=study.train if study else None, overrides=rest)
    except ConfigError as error:
        faults.append(str(error))
    if study and train:
        faults += _space_faults(study, rest)
    if faults or study is None or train is None:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return study, train


_OWN = frozenset(StudyConfig.model_fields) - {"seed", "recipe"}
"""`seed=` is the training's; a study's own is set in its file."""


def _space_faults(study: StudyConfig, overrides: Sequence[str]) -> list[str]:
    """What the training config says to each key's values, one key at a time."""
    faults = []
    for key, axis in study.space.items():
        for value in axis.examples:
            try:
                resolve(recipe=study.train, overrides=[*overrides, f"{key}={value}"])
            except ConfigError as error:
                faults += [f"space: {line}" for line in str(error).splitlines()]
    return faults
