"""The search space: for each key of the training config the values that it may have.

optimizer.lr: {loguniform: [1e-5, 5e-4]}
model.freeze: {int: [0, 4]}
optimizer.loss: {choice: [cross_entropy, focal]}
optimizer.focal_gamma: {uniform: [1, 3], when: {optimizer.loss: focal}}
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from training.schema import Section

if TYPE_CHECKING:
    import optuna

KINDS = ("uniform", "loguniform", "int", "choice", "grid")
Space = Mapping[str, "Axis"]
Settings = dict[str, Any]


class Axis(Section):
    """One key's values; exactly one of the five kinds."""

    uniform: tuple[float, float] | None = None
    """Low and high."""
    loguniform: tuple[float, float] | None = None
    """Low and high, both positive."""
    integers: tuple[int, int] | None = Field(default=None, alias="int")
    """Lowest and highest of whole numbers."""
    choice: tuple[Any, ...] | None = None
    """Values to draw from."""
    grid: tuple[Any, ...] | None = None
    """Values to try every one of; for the searcher `grid` alone."""
    when: dict[str, Any] = Field(default_factory=dict)
    """The key is searched only where those other keys, named before, have these values."""

    @field_validator("choice", "grid")
    @classmethod
    def _numbers(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        # YAML 1.1 takes 5e-05 for a text.
        return None if values is None else tuple(map(_number, values))

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(self.kinds) != 1:
            raise ValueError(
                f"space: exactly one of {', '.join(KINDS)} for each key, "
                f"got {', '.join(self.kinds) or 'none'}"
            )
        for low, high in filter(None, (self.uniform, self.loguniform, self.integers)):
            if not low < high or (self.loguniform and low <= 0):
                raise ValueError(
                    f"space: {self.kinds[0]} needs low < high"
                    f"{', above 0' if self.loguniform else ''}, got {low:g}, {high:g}"
                )
        values = self.choice if self.choice is not None else self.grid
        if values is not None and not values:
            raise ValueError(f"space: {self.kinds[0]} needs at least one value")
        if values is not None and len(set(map(_text, values))) < len(values):
            raise ValueError(f"space: {self.kinds[0]} has a value twice: {list(values)}")
        return self

    @property
    def kinds(self) -> list[str]:
        """The kinds that are given; one, after validation."""
        given = (self.uniform, self.loguniform, self.integers, self.choice, self.grid)
        return [kind for kind, value in zip(KINDS, given, strict=True) if value is not None]

    @property
    def examples(self) -> Sequence[Any]:
        """Values that the training config must accept: all, or the two ends."""
        return self.values or self.uniform or self.loguniform or self.integers or ()

    @property
    def values(self) -> tuple[Any, ...]:
        """All values, where they can be counted out: scalars, others as JSON text."""
        return tuple(_scalar(value) for value in self.choice or self.grid or ())

    def holds(self, settings: Settings) -> bool:
        """Whether the key is searched beside these settings."""
        return all(key in settings and settings[key] == v for key, v in self.when.items())

    def has(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        if self.values:
            return value in self.values
        low, high = self.uniform or self.loguniform or self.integers or (0, 0)
        return isinstance(value, int | float) and low <= value <= high

    def draw(self, key: str, trial: "optuna.Trial") -> Any:
        """A value that Optuna's sampler chooses."""
        if self.uniform is not None:
            return trial.suggest_float(key, *self.uniform)
        if self.loguniform is not None:
            return trial.suggest_float(key, *self.loguniform, log=True)
        if self.integers is not None:
            return trial.suggest_int(key, *self.integers)
        return trial.suggest_categorical(key, self.values)


def draw(space: Space, trial: "optuna.Trial") -> Settings:
    """A point of the space, of keys whose condition holds."""
    settings: Settings = {}
    for key, axis in space.items():
        if axis.holds(settings):
            settings[key] = axis.draw(key, trial)
    return settings


def combinations(space: Space) -> list[Settings]:
    """Every point of a space of `grid` values, in order, the last key changing fastest."""

    def below(keys: list[str], settings: Settings) -> Iterator[Settings]:
        if not keys:
            yield settings
            return
        key, *rest = keys
        if not space[key].holds(settings):
            yield from below(rest, settings)
            return
        for value in space[key].values:
            yield from below(rest, settings | {key: value})

    return list(below(list(space), {}))


def point_of(space: Space, tree: Mapping[str, Any]) -> Settings | None:
    """The point of a space where a config is, given as a tree of plain values; None if outside."""
    settings: Settings = {}
    for key, axis in space.items():
        if not axis.holds(settings):
            continue
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        if not axis.has(_scalar(value)):
            return None
        settings[key] = _scalar(value)
    return settings


def conditions(space: Space) -> list[str]:
    """What is wrong with the `when` of the keys."""
    faults, before = [], dict[str, Axis]()
    for key, axis in space.items():
        for other, value in axis.when.items():
            if other not in before:
                faults.append(f"space.{key}: when names {other}, which is no key before it")
            elif before[other].values and value not in before[other].values:
                allowed = ", ".join(map(str, before[other].values))
                faults.append(f"space.{key}: when {other} is {value}, which is none of {allowed}")
            elif not before[other].values:
                faults.append(f"space.{key}: when needs a choice or grid, {other} is none")
        before[key] = axis
    return faults


def override(key: str, value: Any) -> str:
    """A setting as the command line writes it."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _text(value: Any) -> str:
    return json.dumps(value)
