"""What the meter tells: against PyTorch's own count of FLOPs, and of steps made by hand."""

import time
from itertools import count
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.batches import Batch, Micro
from training.config import ModelConfig
from training.meter import WINDOW, Meter, Work, peak_flops
from training.model import MailModel, build
from training.tensors import pad


def _model(attention: Literal["auto", "sdpa", "eager"] = "sdpa", **kwargs: Any) -> MailModel:
    return build(ModelConfig(name="tiny", attention=attention, **kwargs), 2, 64)


def _micro(*lengths: int) -> Micro:
    ids, mask = pad([np.full(length, 7) for length in lengths])
    labels = torch.zeros(len(lengths), dtype=torch.int64)
    return Micro(np.arange(len(lengths)), ids, mask, labels, sum(lengths))


def _stand_in() -> Micro:
    ids, mask = pad([np.zeros(2, np.int64)])
    return Micro(np.empty(0, np.int64), ids, mask, torch.zeros(1, dtype=torch.int64), 0)


def _batch(*parts: Micro, size: int = 8) -> Batch:
    return Batch(0, 0, size, list(parts))


@pytest.fixture(scope="module")
def model() -> MailModel:
    return _model()


def _check(model: MailModel) -> None:
    part = _micro(24, 24, 24, 24)
    with FlopCounterMode(display=False) as counter:
        model(part.ids, part.mask).sum().backward()
    assert Work(model).flops(part) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_flops_are_those_that_pytorch_counts(freeze: int) -> None:
    _check(_model("eager", freeze=freeze))  # PyTorch does not count the CPU's fused attention


def test_a_pooler_and_a_sigmoid_head_work_once_a_mail() -> None:
    _check(_model("eager", pooling="pooler", head="sigmoid"))


def test_a_frozen_layer_above_a_trainable_one_passes_gradients_on() -> None:
    model = _model("eager")
    model.encoder.get_submodule("encoder.layer.1").requires_grad_(False)
    _check(model)


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_all_kernels_of_attention_are_the_same_work(freeze: int) -> None:
    part = _micro(24, 24)
    models = [_model(kind, freeze=freeze) for kind in ("sdpa", "eager", "auto")]
    fused, eager, chosen = (Work(model).flops(part) for model in models)
    assert fused == eager == chosen > 0


def test_padding_and_stand_ins_are_no_work(model: MailModel) -> None:
    work = Work(model)
    apart = work.flops(_micro(5)) + work.flops(_micro(20))
    assert work.flops(_micro(5, 20)) == pytest.approx(apart)
    assert work.flops(_stand_in()) == 0


def test_making_a_meter_changes_neither_random_numbers_nor_the_mode(model: MailModel) -> None:
    before = torch.get_rng_state()
    for mode in (True, False):
        model.train(mode)
        Meter(model, 1)
        assert all(module.training == mode for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_peak_is_in_flops_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) / 100)
    assert peak_flops(torch.device("cpu")) == pytest.approx(2 * 1024**3 / 0.01)


def test_figures_are_of_mails_in_all_ranks_and_of_real_tokens(model: MailModel) -> None:
    meter = Meter(model, world=2)
    assert meter.facts() == {}
    part = _micro(10, 20)
    meter.add(_batch(part, _micro(8), size=6), 2.0)
    meter.add(_batch(_stand_in(), size=6), 1.0)
    facts = meter.facts()
    assert facts["mails_per_second"] == 4.0
    assert facts["tokens_per_second"] == pytest.approx(2 * 38 / 3)
    assert facts["padding"] == pytest.approx(1 - 38 / 50)
    assert facts["step_seconds"] == 1.5
    assert facts["trained_seconds"] == 3.0
    flops = meter.work.flops(part) + meter.work.flops(_micro(8))
    assert facts["mfu"] == pytest.approx(flops / 3 / meter.peak)


def test_figures_follow_the_present(model: MailModel) -> None:
    meter = Meter(model, 1)
    meter.add(_batch(_micro(4, 16)), 100.0)
    assert meter.facts()["mails_per_second"] == 0.08
    for _ in range(40):
        meter.add(_batch(_micro(4, 4)), 1.0)
    facts = meter.facts()
    assert facts["mails_per_second"] == pytest.approx(8.0)
    assert facts["padding"] == pytest.approx(0.0)
    assert facts["trained_seconds"] == 140.0
    assert len(meter.steps) == WINDOW


def test_a_peak_that_was_timed_beside_other_work_does_not_count(
    model: MailModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = iter([2e15, 1e15, 3e15])
    monkeypatch.setattr("training.meter.peak_flops", lambda device: next(timed))
    monkeypatch.setattr("training.meter._peaks", {})
    assert [Meter(model, 1).peak for _ in range(3)] == [2e15, 2e15, 3e15]
