"""The training loss: against Torch's own, between the two heads, and at its edges."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from training.config import OptimizerConfig, TrainConfig, resolve
from training.losses import Loss
from training.model import HeadShape
from training.schema import ConfigError

SMOOTHING = st.floats(0, 0.9)
GAMMA = st.floats(0, 5)
WEIGHT = st.floats(0.1, 10)
KIND = st.sampled_from(["cross_entropy", "focal"])


def _loss(labels: int = 3, sigmoid: bool = False, counts: Any = None, **options: Any) -> Loss:
    shape = HeadShape(labels, "mean", "sigmoid" if sigmoid else "softmax", 0.1)
    mails = np.ones(labels, np.int64) if counts is None else np.asarray(counts, np.int64)
    return Loss(OptimizerConfig.model_validate(options), shape, mails, int(mails.sum()))


def _mails(labels: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits [64, labels] and labels [64], the same each time."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(64, labels, generator=random) * scale
    return logits, torch.randint(labels, (64,), generator=random)


def test_by_default_it_is_bit_for_bit_the_loss_of_the_golden_results() -> None:
    logits, labels = _mails(3)
    plain = functional.cross_entropy(logits, labels, reduction="none")
    assert torch.equal(_loss()(logits, labels), plain)
    logits, labels = _mails(2)
    z = logits[:, :1]
    binary = functional.binary_cross_entropy_with_logits(
        z.squeeze(1), labels.float(), reduction="none"
    )
    assert torch.equal(_loss(2, sigmoid=True)(z, labels), binary)


@given(smoothing=SMOOTHING, weights=st.lists(WEIGHT, min_size=3, max_size=3))
def test_focal_with_gamma_0_and_cross_entropy_are_both_torchs(
    smoothing: float, weights: list[float]
) -> None:
    logits, labels = _mails(3)
    expected = functional.cross_entropy(
        logits, labels, torch.tensor(weights), reduction="none", label_smoothing=smoothing
    )
    options: dict[str, Any] = {"label_smoothing": smoothing, "class_weights": weights}
    plain = _loss(**options)(logits, labels)
    focal = _loss(loss="focal", focal_gamma=0, **options)(logits, labels)
    torch.testing.assert_close(plain, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(focal, expected, rtol=2e-6, atol=1e-6)


@given(smoothing=SMOOTHING, gamma=GAMMA, kind=KIND, weights=st.none() | st.tuples(WEIGHT, WEIGHT))
def test_a_sigmoid_on_z_is_a_softmax_on_0_and_z_whatever_the_options(
    smoothing: float, gamma: float, kind: str, weights: tuple[float, float] | None
) -> None:
    logits, labels = _mails(2)
    z = logits[:, :1]
    options: dict[str, Any] = {
        "loss": kind,
        "focal_gamma": gamma,
        "label_smoothing": smoothing,
        "class_weights": weights or "none",
    }
    one = _loss(2, sigmoid=True, **options)(z, labels)
    two = _loss(2, **options)(torch.cat([torch.zeros_like(z), z], 1), labels)
    assert one.shape == (64,)
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_scales_the_loss_of_a_mail_by_what_its_label_lacks(gamma: float) -> None:
    p = torch.tensor([0.9, 0.5, 0.1])
    logits = torch.stack([(1 - p).log(), p.log()], 1)
    losses = _loss(2, loss="focal", focal_gamma=gamma)(logits, torch.ones(3, dtype=torch.long))
    torch.testing.assert_close(losses, -((1 - p) ** gamma) * p.log())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradients_of_focal_are_finite_where_the_model_is_certain(
    gamma: float, sigmoid: bool
) -> None:
    rows = [[-200.0], [-20.0], [0.0], [20.0], [200.0]]
    z = torch.tensor(rows if sigmoid else [[0.0, *row] for row in rows], requires_grad=True)
    loss = _loss(2, sigmoid=sigmoid, loss="focal", focal_gamma=gamma)
    for label in (0, 1):
        losses = loss(z, torch.full((5,), label))
        (slope,) = torch.autograd.grad(losses.sum(), z)
        assert losses.isfinite().all()
        assert slope.isfinite().all()
        # The most wrong mail, whose probability is 0, pulls as in cross-entropy: by 1.
        assert slope[0 if label else -1, -1] == pytest.approx(-1 if label else 1, abs=1e-4)


@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=6))
def test_balanced_weights_are_those_of_scikit_learn_and_1_on_average(counts: list[int]) -> None:
    loss = _loss(len(counts), counts=counts, class_weights="balanced")
    assert loss.weights is not None
    truth = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=truth)
    np.testing.assert_allclose(loss.weights.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(loss.weights.numpy()[truth].mean(dtype=float), 1, rtol=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_weight_is_that_of_the_mails_own_label(sigmoid: bool) -> None:
    logits, labels = _mails(2)
    logits = logits[:, :1] if sigmoid else logits
    plain = _loss(2, sigmoid=sigmoid)(logits, labels)
    weighted = _loss(2, sigmoid=sigmoid, class_weights=[0.5, 3])(logits, labels)
    torch.testing.assert_close(weighted, plain * torch.where(labels == 1, 3.0, 0.5))


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_weights_go_to_the_device_of_the_logits(device: str, kind: str, sigmoid: bool) -> None:
    logits, labels = _mails(2)
    logits = logits[:, :1] if sigmoid else logits
    loss = _loss(2, sigmoid=sigmoid, loss=kind, class_weights=[1, 2], label_smoothing=0.1)
    expected = loss(logits, labels)
    there = loss(logits.to(device), labels.to(device))
    assert there.device.type == device
    assert there.shape == expected.shape
    if device != "meta":
        torch.testing.assert_close(there.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.class_weights .* the 3 labels, got 2$"):
        _loss(3, class_weights=[1, 2])


def test_balanced_weights_of_a_label_without_mails_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.class_weights: .* got \[5, 0, 3\]"):
        _loss(3, counts=[5, 0, 3], class_weights="balanced")
    assert _loss(3, counts=[5, 0, 3]).weights is None


def test_weights_come_back_from_json_as_they_were() -> None:
    config = resolve(recipe="smoke", overrides=["optimizer.class_weights=[1, 2.5]"])
    assert config.optimizer.class_weights == (1.0, 2.5)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.loss=hinge", r"optimizer\.loss: .*'cross_entropy' or 'focal', got 'hinge'"),
        ("optimizer.focal_gamma=-1", r"optimizer\.focal_gamma: .*equal to 0, got -1"),
        ("optimizer.focal_gamma=nan", r"optimizer\.focal_gamma: .*finite number, got nan"),
        ("optimizer.label_smoothing=1", r"optimizer\.label_smoothing: .*less than 1, got 1"),
        ("optimizer.class_weights=auto", r"optimizer\.class_weights must be .*got 'auto'"),
        ("optimizer.class_weights=[1, 0]", r"optimizer\.class_weights must be .*got \[1, 0\]"),
        ("optimizer.class_weights=[.inf, 1]", r"optimizer\.class_weights must be .*got \[inf, 1\]"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"\A{said}\Z"):
        resolve(recipe="smoke", overrides=[override])


def _of_several(counts: Any = (2, 2, 2), mails: int = 4, **options: Any) -> Loss:
    shape = HeadShape(3, "mean", "sigmoid", 0.1, multi=True)
    return Loss(OptimizerConfig.model_validate(options), shape, np.array(counts), mails)


@given(smoothing=SMOOTHING, weights=st.lists(WEIGHT, min_size=3, max_size=3))
def test_of_several_labels_it_is_torchs_with_weights_of_positives(
    smoothing: float, weights: list[float]
) -> None:
    logits, _ = _mails(3)
    codes = torch.arange(64) % 8
    bits = torch.stack([codes & 1, codes >> 1 & 1, codes >> 2 & 1], 1).float()
    expected = functional.binary_cross_entropy_with_logits(
        logits,
        bits * (1 - smoothing) + smoothing / 2,
        pos_weight=torch.tensor(weights),
        reduction="none",
    ).mean(1)
    options: dict[str, Any] = {"label_smoothing": smoothing, "class_weights": weights}
    torch.testing.assert_close(_of_several(**options)(logits, codes), expected)
    focal = _of_several(**options, loss="focal", focal_gamma=0)
    torch.testing.assert_close(focal(logits, codes), expected)


def test_of_several_labels_a_focal_loss_looks_away_from_what_is_easy() -> None:
    sure, unsure = torch.tensor([[6.0, -6, 6]]), torch.tensor([[0.5, -0.5, 0.5]])
    codes = torch.tensor([0b101])
    plain, focal = _of_several(), _of_several(loss="focal", focal_gamma=2)
    p = torch.sigmoid(torch.tensor(0.5))
    assert focal(unsure, codes) == pytest.approx(float(plain(unsure, codes) * (1 - p) ** 2))
    assert focal(sure, codes) / plain(sure, codes) < 1e-4


def test_of_several_labels_balanced_weights_are_negatives_to_positives() -> None:
    loss = _of_several((1, 2, 4), 5, class_weights="balanced")
    assert loss.weights is not None
    assert loss.weights.tolist() == [4, 1.5, 0.25]
    with pytest.raises(ConfigError, match="and some without it, got"):
        _of_several((1, 2, 5), 5, class_weights="balanced")
