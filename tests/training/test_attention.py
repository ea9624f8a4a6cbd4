"""Blocked attention against PyTorch's own: the same numbers, with and without padding."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from training import attention
from training.attention import BLOCKED, blocked
from training.config import ModelConfig
from training.model import MailModel, build

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is for a CPU")


def _heads(
    mails: int, tokens: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (mails, tokens, 3, 8)  # as an encoder's layers give them: heads before tokens, a view
    all_three = torch.randn((3, *shape), generator=source, dtype=dtype)
    query, key, value = (part.transpose(1, 2).requires_grad_() for part in all_three)
    return query, key, value


def _mask(*lengths: int) -> Tensor:
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()


def _run(mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out, _ = blocked(torch.nn.Identity(), query, key, value, mask, 0.3)
    return out.transpose(1, 2)


@pytest.mark.parametrize("lengths", [(7, 7, 7), (2, 5, 9), (9, 4, 4, 1)])
@pytest.mark.parametrize("block", [None, 1, 800, 2 << 20])
def test_values_and_gradients_are_those_of_the_fused_kernel(
    lengths: tuple[int, ...], block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain products, and in blocks of some bytes."""
    if block is not None:
        monkeypatch.setattr(attention, "PLAIN_TOKENS", 0)
        monkeypatch.setattr(attention, "_BLOCK_BYTES", block)
    parts, mask = _heads(len(lengths), max(lengths)), _mask(*lengths)
    real = mask.bool()[:, None, :, None]
    found = []
    for out in (
        _run(None if mask.all() else mask, *parts),
        scaled_dot_product_attention(*parts, attn_mask=mask.bool()[:, None, None], scale=0.3),
    ):
        kept = out.masked_fill(~real, 0)
        found.append((kept, torch.autograd.grad(kept.sin().sum(), parts)))
    (ours, our_grads), (theirs, their_grads) = found
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_grads, their_grads)


def test_gradients_are_right_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PLAIN_TOKENS", 0)
    mask = _mask(2, 4)
    assert torch.autograd.gradcheck(lambda *parts: _run(mask, *parts), _heads(2, 4))


def test_blocks_do_not_read_padding_and_give_it_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PLAIN_TOKENS", 0)
    parts, mask = _heads(2, 6), _mask(6, 3)
    with torch.no_grad():
        for part in parts:
            part[1, :, 3:] = torch.nan
    out = _run(mask, *parts)
    assert out.isfinite().all()
    assert (out[1, :, 3:] == 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), parts))


@pytest.mark.parametrize("plain", [0, 160])
def test_bf16_under_autocast_is_as_near_to_float64_as_the_fused_kernel(
    plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PLAIN_TOKENS", plain)
    exact = _heads(4, 64)
    query, key, value = (part.detach().bfloat16() for part in exact)
    truth = scaled_dot_product_attention(*exact, scale=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        ours = _run(None, query, key, value)
        fused = scaled_dot_product_attention(query, key, value, scale=0.3)
    assert ours.dtype == torch.bfloat16
    assert (ours - truth).abs().max() < 2 * (fused - truth).abs().max()


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="no dropout"):
        blocked(torch.nn.Identity(), *_heads(1, 2), None, 0.3, dropout=0.1)


@on_cpu
@pytest.mark.parametrize("lengths", [(16, 16), (161, 8), (1, 3)])
def test_a_model_gives_the_same_logits_with_every_kernel(lengths: tuple[int, ...]) -> None:
    model, mask = build(ModelConfig(name="tiny"), 2, 256).eval(), _mask(*lengths)
    settings: Any = model.encoder.config
    assert settings._attn_implementation == BLOCKED
    ids = torch.arange(mask.numel()).reshape(mask.shape) % 1_000
    logits = model(ids, None if mask.all() else mask)
    for other in ("eager", "sdpa"):
        settings._attn_implementation = other
        torch.testing.assert_close(model(ids, mask), logits, atol=1e-5, rtol=1e-5)


@on_cpu
@pytest.mark.parametrize(
    "settings", [{"attention": "sdpa"}, {"attention": "eager"}, {"attention_dropout": 0.1}]
)
def test_a_chosen_kernel_or_dropout_keeps_the_encoders_own(settings: dict[str, Any]) -> None:
    model: MailModel = build(ModelConfig(name="tiny", **settings), 2, 64)
    kept: Any = model.encoder.config
    assert kept._attn_implementation == settings.get("attention", "sdpa")


def test_a_gpu_takes_no_kernel_that_is_planned_for_each_shape() -> None:
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()
