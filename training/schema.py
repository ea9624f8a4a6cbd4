"""Config sections: frozen, typed, made of YAML and dotted overrides, and the faults of wrong ones.

config = validate(TrainConfig, read_yaml(file), ["optimizer.lr=3e-5", "scaling.workers=1"])
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A config is wrong; the message has one line for each fault."""


class Section(BaseModel):
    """A part of a config: frozen, unknown keys refused, every field documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


ConfigT = TypeVar("ConfigT", bound=Section)


def recipe_file(name: str, folder: Path) -> Path:
    """The file of a recipe, or a ConfigError that lists the recipes there are."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no recipe {name!r}; there are: {', '.join(known)}{_near(name, known)}")
    return folder / f"{name}.yaml"


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping, or a ConfigError that says why there is none."""
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{file}: {reason}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: a mapping of keys to values is needed")
    return tree


def validate(kind: type[ConfigT], tree: dict[str, Any], overrides: Sequence[str] = ()) -> ConfigT:
    """A config made of a tree of plain values and `dotted.key=value` overrides.

    Raises:
        ConfigError: all faults together.
    """
    faults: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            faults.append(f"{override}: overrides are written key=value, as optimizer.lr=3e-5")
            continue
        try:
            _set(tree, key.strip().split("."), yaml_value(text))
        except ValueError as error:
            faults.append(f"{key}: {error}")
    try:
        config = kind.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(kind, dict(item)) for item in error.errors()]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def yaml_value(text: str) -> Any:
    """A value as YAML reads it, and 2e-5 as a number, which YAML 1.1 does not."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not a YAML value: {text!r}") from error
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ValueError(f"{key} is a value, it has no keys below it")
        tree = below
    tree[keys[-1]] = value


def _fault(kind: type[Section], item: dict[str, Any]) -> str:
    """One line for one pydantic error."""
    path = [str(part) for part in item["loc"]]
    where = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = _keys_at(kind, path[:-1])
        return f"{where}: no such key; allowed: {', '.join(known)}{_near(path[-1], known)}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"


def _keys_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            break
        if issubclass(field.annotation, BaseModel):
            kind = field.annotation
    return list(kind.model_fields)


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
