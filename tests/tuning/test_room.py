"""How many trials a cluster has room for."""

import time

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from training.schema import ConfigError
from tuning.config import StudyConfig, resolve_study
from tuning.room import clear, room


def _study(*overrides: str) -> StudyConfig:
    return resolve_study(recipe="bayes", overrides=list(overrides))[0]


@pytest.mark.parametrize(
    ("have", "overrides", "trials"),
    [
        ({"CPU": 8.0}, [], 8),
        ({"CPU": 8.0}, ["concurrent=3"], 3),
        ({"CPU": 8.0}, ["resources.cpus=3"], 2),
        ({"CPU": 8.0}, ["resources.workers=2", "resources.cpus=2"], 1),  # 4 + 4 leaves no driver
        ({"CPU": 9.0}, ["resources.workers=2", "resources.cpus=2"], 2),
        ({"CPU": 64.0, "GPU": 3.0}, ["resources.gpus=0.5"], 6),
        ({"CPU": 64.0, "GPU": 3.0}, ["resources.gpus=0.4"], 6),  # two on each, a fifth is idle
        ({"CPU": 64.0, "GPU": 5.0}, ["resources.gpus=1", "resources.workers=2"], 2),
    ],
)
def test_as_many_trials_as_fit(
    have: dict[str, float], overrides: list[str], trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    assert room(_study(*overrides)) == trials


@pytest.mark.parametrize(
    ("have", "overrides", "said"),
    [
        ({"CPU": 2.0}, ["resources.cpus=3"], "lower resources.workers or resources.cpus"),
        ({"CPU": 2.0}, ["resources.workers=2"], "and one for the trial itself does not fit"),
        ({"CPU": 8.0}, ["resources.gpus=1"], "lower resources.gpus"),
    ],
)
def test_what_does_not_fit_is_refused(
    have: dict[str, float], overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    with pytest.raises(ConfigError, match=said):
        room(_study(*overrides))


@pytest.mark.usefixtures("ray_session")
def test_placement_groups_that_are_left_are_removed() -> None:
    left = placement_group([{"CPU": 1}])
    ray.get(left.ready())
    clear()
    deadline = time.monotonic() + 30
    while placement_group_table(left)["state"] != "REMOVED":
        assert time.monotonic() < deadline
        time.sleep(0.1)
