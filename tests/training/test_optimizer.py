"""Learning rates over the steps and down the layers, and which parameters are decayed."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DistilBertConfig, DistilBertModel

from training.config import ModelConfig, OptimizerConfig, resolve
from training.model import HeadShape, MailModel, build
from training.optimizer import make_optimizer
from training.schema import ConfigError

TINY = build(ModelConfig(name="tiny"), 2, 32)


def _factors(config: OptimizerConfig, steps: int) -> list[float]:
    _, schedule = make_optimizer(TINY, config, steps)
    return [schedule.lr_lambdas[0](step) for step in range(steps + 1)]


def _rates(model: MailModel, config: OptimizerConfig) -> dict[str, float]:
    """The peak learning rate of each parameter that is trained."""
    optimizer, _ = make_optimizer(model, config, 10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: group["initial_lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99))
def test_the_linear_schedule_is_bit_for_bit_that_of_the_golden_results(
    steps: int, warmup: float
) -> None:
    rise = max(1, round(steps * warmup))
    expected = [
        min((step + 1) / rise, (steps - step) / max(1, steps - rise)) for step in range(steps + 1)
    ]
    assert _factors(OptimizerConfig(warmup=warmup), steps) == expected


@pytest.mark.parametrize(
    ("schedule", "middle", "end"), [("linear", 0.5, 0), ("cosine", 0.5, 0), ("constant", 1, 1)]
)
def test_a_schedule_at_its_start_peak_middle_and_end(
    schedule: str, middle: float, end: float
) -> None:
    config = OptimizerConfig.model_validate({"schedule": schedule, "warmup": 0.2})
    factors = _factors(config, 100)
    assert factors[:2] == [1 / 20, 2 / 20]
    assert factors[19] == factors[20] == 1
    assert factors[60] == pytest.approx(middle)
    assert factors[100] == end


def test_cosine_is_above_linear_first_and_below_it_later() -> None:
    cosine = _factors(OptimizerConfig(schedule="cosine", warmup=0), 100)
    assert cosine[25] == pytest.approx((1 + 2**-0.5) / 2, abs=0.01)
    assert cosine[75] == pytest.approx((1 - 2**-0.5) / 2, abs=0.01)


@given(
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
    steps=st.integers(1, 200),
    warmup=st.floats(0, 0.99),
)
def test_a_learning_rate_rises_to_the_peak_and_never_again(
    schedule: str, steps: int, warmup: float
) -> None:
    config = OptimizerConfig.model_validate({"schedule": schedule, "warmup": warmup})
    factors = _factors(config, steps)
    peak = factors.index(1)
    assert max(1, round(steps * warmup)) == peak + 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] == (1 if schedule == "constant" else 0)


def test_without_layer_decay_there_are_two_groups_and_only_matrices_shrink() -> None:
    optimizer, schedule = make_optimizer(TINY, OptimizerConfig(weight_decay=0.3, lr=1e-3), 1)
    matrices, vectors = (group["params"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert schedule.get_last_lr() == [1e-3, 1e-3]
    parameters = list(TINY.parameters())
    assert [id(p) for p in matrices] == [id(p) for p in parameters if p.ndim == 2]
    assert [id(p) for p in vectors] == [id(p) for p in parameters if p.ndim == 1]


def test_each_layer_down_has_the_rate_of_the_one_above_times_the_decay() -> None:
    model = build(ModelConfig(name="tiny", pooling="pooler"), 2, 32)
    rates = _rates(model, OptimizerConfig(lr=0.8, layer_decay=0.5))
    assert rates.keys() == dict(model.named_parameters()).keys()
    expected = {
        "head": 0.8,
        "encoder.pooler": 0.8,
        "encoder.encoder.layer.1": 0.4,
        "encoder.encoder.layer.0": 0.2,
        "encoder.embeddings": 0.1,
    }
    for name, rate in rates.items():
        assert rate == pytest.approx(next(r for k, r in expected.items() if name.startswith(k)))


def test_layer_decay_leaves_weight_decay_and_the_first_group_as_they_were() -> None:
    config = OptimizerConfig(lr=0.8, layer_decay=0.5, weight_decay=0.3)
    optimizer, schedule = make_optimizer(TINY, config, 1)
    assert schedule.get_last_lr()[0] == 0.8
    for group in optimizer.param_groups:
        assert {p.ndim for p in group["params"]} == ({2} if group["weight_decay"] else {1})
        assert group["weight_decay"] in (0.3, 0.0)


def test_layers_keep_their_ratio_while_the_schedule_goes_to_zero() -> None:
    model = build(ModelConfig(name="tiny"), 2, 32)
    optimizer, schedule = make_optimizer(model, OptimizerConfig(lr=0.8, layer_decay=0.5), 4)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    rates = schedule.get_last_lr()
    assert rates[-1] == pytest.approx(rates[0] / 8)
    assert 0 < rates[0] < 0.8
    optimizer.step()
    schedule.step()
    assert set(schedule.get_last_lr()) == {0}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_what_is_frozen_is_in_no_group(layer_decay: float) -> None:
    model = build(ModelConfig(name="tiny", freeze=2), 2, 32)
    rates = _rates(model, OptimizerConfig(layer_decay=layer_decay))
    kept = ("head.", "encoder.encoder.layer.1.")
    assert rates.keys() == {n for n, _ in model.named_parameters() if n.startswith(kept)}
    optimizer, _ = make_optimizer(model, OptimizerConfig(layer_decay=layer_decay), 10)
    assert len(optimizer.param_groups) == (2 if layer_decay == 1 else 4)
    assert all(group["params"] for group in optimizer.param_groups)


def test_layer_decay_of_another_architecture_is_refused() -> None:
    settings = DistilBertConfig(vocab_size=50, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    encoder: Any = DistilBertModel(settings)
    model = MailModel(encoder, HeadShape(2, "mean", "softmax", 0.1))
    make_optimizer(model, OptimizerConfig(), 10)
    with pytest.raises(ConfigError, match=r"^optimizer\.layer_decay: .* DistilBertModel has none$"):
        make_optimizer(model, OptimizerConfig(layer_decay=0.9), 10)


def test_a_step_without_gradient_moves_matrices_alone() -> None:
    model = build(ModelConfig(name="tiny"), 2, 32)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = OptimizerConfig(lr=0.1, weight_decay=0.5, warmup=0, layer_decay=0.5)
    optimizer, _ = make_optimizer(model, config, 10)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["head.weight"], before["head.weight"] * (1 - 0.1 * 0.5))
    lowest = "encoder.embeddings.position_embeddings.weight"
    torch.testing.assert_close(after[lowest], before[lowest] * (1 - 0.1 * 0.5 / 8))
    norm = "encoder.embeddings.LayerNorm.weight"
    assert torch.equal(after[norm], before[norm])


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.schedule=step",
        "optimizer.layer_decay=0",
        "optimizer.layer_decay=1.01",
        "optimizer.layer_decay=nan",
    ],
)
def test_a_wrong_value_is_refused_by_its_key(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}: .*got .*$"):
        resolve(recipe="smoke", overrides=[override])
