"""Exact attention for a CPU: a few heads at a time, so that their scores never leave the cache.

PyTorch's fused kernel spends most of its time in backward, and works on padding as on tokens; plain
products write all scores to memory. Here each block's scores are made, used and dropped, and made
again for backward, so that memory stays linear in the tokens of a mail. Padding is never read.
Each length takes blocks of its own, so that short mails, whose scores fit into the caches, are
better off with plain products: one for all. Forward and backward of 16 mails of one length,
MiniLM, bf16, two cores (ms; fused, plain, blocks): 64 tokens 14, 3, 4; 128 35, 13, 12; 256 69, 55,
42; 512 192, 300, 125. A run of the default recipe, 128 tokens and nearly as many lengths as mails
(mails/s): fused 21, plain 28, blocks 26.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

BLOCKED: Final = "blocked"
"""The name under which transformers knows it."""
KINDS: Final = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
"""Model types whose attention is full in both directions, with nothing added to its scores."""
PLAIN_TOKENS: Final = 160
"""Of the longest mail of a batch; up to here plain products are the faster."""
_BLOCK_BYTES: Final = 2 << 20
"""Of one block's scores: what two cores keep in their caches."""


def _spans(lengths: Sequence[int], heads: int, itemsize: int) -> Iterator[tuple[int, int, int]]:
    """First row, end and tokens of each block of [mails x heads] rows; one length in a block."""
    first = 0
    while first < len(lengths):
        tokens, last = lengths[first], first
        while last < len(lengths) and lengths[last] == tokens:
            last += 1
        size = max(torch.get_num_threads(), _BLOCK_BYTES // (tokens * tokens * itemsize))
        for row in range(first * heads, last * heads, size):
            yield row, min(row + size, last * heads), tokens
        first = last


class _Blocked(torch.autograd.Function):
    """softmax(q k' scale) v; all of [mails, heads, tokens, width]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float
    ) -> Tensor:
        q, k, v = (part.flatten(0, 1).contiguous() for part in (query, key, value))
        out = torch.zeros_like(v)
        with torch.autocast(q.device.type, enabled=False):
            for start, end, tokens in _spans(lengths, query.shape[1], q.element_size()):
                at = (slice(start, end), slice(tokens))
                out[at] = torch.bmm(_weights(q[at], k[at], scale), v[at])
        ctx.save_for_backward(q, k, v)
        ctx.lengths, ctx.scale, ctx.shape = lengths, scale, query.shape
        return out.view_as(query)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        gradient = grad.flatten(0, 1).contiguous()
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, end, tokens in _spans(ctx.lengths, ctx.shape[1], q.element_size()):
            at = (slice(start, end), slice(tokens))
            weights = _weights(q[at], k[at], ctx.scale)
            dv[at] = torch.bmm(weights.transpose(1, 2), gradient[at])
            of_weights = torch.bmm(gradient[at], v[at].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, q.dtype)
            dq[at] = torch.bmm(of_scores, k[at])
            dk[at] = torch.bmm(of_scores.transpose(1, 2), q[at])
        shape = ctx.shape
        return (
            (dq * ctx.scale).view(shape),
            (dk * ctx.scale).view(shape),
            dv.view(shape),
            None,
            None,
        )


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask.bool()[:, None, None], -torch.inf)
    return torch.softmax(scores, -1) @ value


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """[rows, tokens, tokens], each query's sum to one."""
    room = query.new_empty(())  # what beta=0 leaves unread
    scores = torch.baddbmm(room, query, key.transpose(1, 2), beta=0, alpha=scale)
    return torch.softmax(scores, -1)


def blocked(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """An attention function of transformers; returns [mails, tokens, heads, width].

    `query`, `key`, `value` are [mails, heads, tokens, width] of one dtype; `attention_mask` is
    [mails, tokens], nonzero for the tokens, which come first, or None without padding. What comes
    out at padding means nothing.

    Raises:
        ValueError: attention dropout, which it does not have.
    """
    if dropout:
        raise ValueError("blocked attention has no dropout")
    mails, _, tokens, _ = query.shape
    if tokens <= PLAIN_TOKENS:
        return _plain(query, key, value, attention_mask, scaling).transpose(1, 2), None
    lengths = [tokens] * mails
    if attention_mask is not None:
        lengths = attention_mask.bool().sum(1).tolist()
    out: Tensor = _Blocked.apply(query, key, value, lengths, scaling)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2), None


# cuDNN's kernel, which PyTorch takes first on an H100 or newer, is planned anew for each shape, and
# batches of mails hardly have one twice: a mail of a new length takes MiniLM 57 ms so, 3.5 with the
# other fused kernels (medians, H200).
torch.backends.cuda.enable_cudnn_sdp(False)
AttentionInterface.register(BLOCKED, blocked)
AttentionMaskInterface.register(BLOCKED, flash_attention_mask)
