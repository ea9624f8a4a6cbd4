"""The study config: counts, faults, and what each trial gets."""

from pathlib import Path

import pytest

from training.schema import ConfigError
from tuning.config import RECIPES, resolve_study


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_every_recipe_resolves(recipe: str) -> None:
    study, config = resolve_study(recipe=recipe)
    assert study.points >= 6
    assert config.recipe == "spam-minilm"
    assert config.scaling.workers == 1


def test_faults_of_study_and_training_come_together() -> None:
    with pytest.raises(ConfigError) as error:
        resolve_study(recipe="bayes", overrides=["trials=0", "optimizer.lr=-1", "objective=luck"])
    message = str(error.value)
    assert "trials:" in message
    assert "optimizer.lr:" in message
    assert "objective: one or more of val_loss" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["scaling.workers=2"], "scaling.workers: a trial has what the study's resources.workers"),
        (["resources.workers=2", "resources.gpus=0.5"], "cannot share a GPU"),
        (["stopping.kind=asha", "objective={val_loss: minimize, seconds: minimize}"],
         "asha needs one objective"),
        (["stopping.grace=0"], "stopping.grace"),
        (["budget.hours=-1"], "budget.hours"),
        (["resources.workers=32"], "batching.size must be at least scaling.workers"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_study(recipe="bayes", overrides=overrides)


def test_the_direction_of_one_objective_is_known_and_of_several_is_said() -> None:
    one, _ = resolve_study(recipe="bayes", overrides=["objective=val_recall_at_fpr_0.005"])
    assert one.directions == {"val_recall_at_fpr_0.005": "maximize"}
    both, _ = resolve_study(
        recipe="bayes", overrides=["objective={val_f1: maximize, seconds: minimize}"]
    )
    assert both.directions == {"val_f1": "maximize", "seconds": "minimize"}
    assert both.metric == "val_f1"


def test_resources_reach_the_training(tmp_path: Path) -> None:
    _, config = resolve_study(
        recipe="grid", overrides=["train=smoke", "resources.workers=2", "resources.cpus=3"]
    )
    assert (config.scaling.workers, config.scaling.cpus, config.scaling.gpu) == (2, 3, False)
