"""The search space: what it allows, and every point of a grid."""

from pathlib import Path

import pytest

from training.schema import ConfigError
from tuning.config import resolve_study
from tuning.space import Axis, combinations, point_of

GRID = """
searcher: grid
train: smoke
space:
  optimizer.loss: {grid: [cross_entropy, focal]}
  optimizer.focal_gamma: {grid: [1.0, 2.0], when: {optimizer.loss: focal}}
  optimizer.class_weights: {grid: [none, [1, 2]]}
"""


def test_a_grid_has_every_combination_that_its_conditions_allow(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(GRID)
    study, _ = resolve_study(file=file)
    points = combinations(study.space)
    assert len(points) == study.points == 2 + 4
    assert points[0] == {"optimizer.loss": "cross_entropy", "optimizer.class_weights": "none"}
    assert points[-1] == {
        "optimizer.loss": "focal", "optimizer.focal_gamma": 2.0,
        "optimizer.class_weights": "[1, 2]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{optimizer.learning: {choice: [1]}}", "no such key"),
        ("{optimizer.lr: {uniform: [-1, 1]}}", "greater than 0"),
        ("{optimizer.lr: {loguniform: [0, 1]}}", "needs low < high, above 0"),
        ("{optimizer.lr: {uniform: [0.1, 1], choice: [1]}}", "exactly one of"),
        ("{optimizer.lr: {grid: [0.1]}}", "takes uniform, loguniform, int or choice alone"),
        ("{optimizer.lr: {choice: []}}", "choice needs at least one value"),
        ("{optimizer.lr: {choice: [0.1, 0.1]}}", "a value twice"),
        ("{model.freeze: {int: [3, 3]}}", "int needs low < high"),
        ("{model.freeze: {int: [0.5, 3]}}", "valid integer"),
        ("{scaling.workers: {choice: [1, 2]}}", "resources.workers is for all trials"),
        ("{optimizer.lr: {choice: [0.1], when: {optimizer.loss: focal}}}", "is no key before it"),
        (
            "{optimizer.loss: {choice: [focal]}, "
            "optimizer.lr: {choice: [0.1], when: {optimizer.loss: mse}}}",
            "which is none of focal",
        ),
        ("{seed: {choice: [1, 2]}}", "seeds is for all trials"),
        ("{data.test: {choice: [0.1, 0.2]}}", "trials could not be compared"),
        ("{data.keep_head: {uniform: [0.1, 0.9]}}", "each value has its own tokens"),
        ("{}", "at least 1 item"),
    ],
)
def test_a_wrong_space_is_named(space: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"searcher: bayes\ntrain: smoke\nspace: {space}\n")
    with pytest.raises(ConfigError, match=said):
        resolve_study(file=file)


def test_a_condition_holds_only_beside_its_value() -> None:
    axis = Axis(choice=(1,), when={"a": 2})
    assert axis.holds({"a": 2})
    assert not axis.holds({"a": 3})
    assert not axis.holds({})


def test_a_config_is_a_point_of_the_space_or_outside_of_it() -> None:
    study, config = resolve_study(recipe="bayes", overrides=["batching.size=8"])
    tree = config.model_dump(mode="json")
    assert point_of(study.space, tree) == {"optimizer.lr": 1e-4, "batching.size": 8}
    study, config = resolve_study(recipe="bayes", overrides=["optimizer.lr=0.1"])
    assert point_of(study.space, config.model_dump(mode="json")) is None


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert Axis(grid=("5e-05", 0.1, "focal")).values == (5e-05, 0.1, "focal")
