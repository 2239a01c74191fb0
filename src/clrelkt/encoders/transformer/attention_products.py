"""Attention on a CPU as two products with a softmax between them.

PyTorch's kernel for a CPU multiplies small blocks by MKL, and takes several times as long as
products of whole matrices do. Those need the scores of every pair of tokens, so a group of texts
has so many of them that they stay in the cache; the weights that the way back needs are kept where
texts are short, and computed again, to the same bits, where they are long.

In 16 bits scores are rounded to 16 bits, as queries and keys were before; their softmax is taken in
32.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from clrelkt.encoders.transformer.kept_memory import Empty, new_memory
from clrelkt.encoders.transformer.text_groups import TextGroup

__all__ = [
    "MOST_SCORES",
    "Attended",
    "GroupScores",
    "attend",
    "attend_backward",
    "attend_with_gradients",
    "has_products",
]

MOST_SCORES = 1 << 18
"""Pairs of tokens, a head, of a group of several texts."""
_LONGEST_KEPT = 256
_ROOT = -0.5


class Attended(NamedTuple):
    """What the way back needs: queries, keys, values, and the weights where texts are short.

    ``heads`` has shape (3, texts * heads, longest, width), ``weights`` (texts * heads, longest,
    longest).
    """

    heads: torch.Tensor
    weights: torch.Tensor | None


class GroupScores(NamedTuple):
    """What is added to a group's scores.

    ``masked``, shape (texts * heads, 1, longest), is -inf where a place holds no token; ``wide``,
    shape (texts or 1, heads or 1, longest, longest), is added in 32 bits.
    """

    masked: torch.Tensor | None = None
    wide: torch.Tensor | None = None

    @classmethod
    def of(
        cls, group: TextGroup, heads: int, dtype: torch.dtype, wide: torch.Tensor | None = None
    ) -> GroupScores:
        """Return what a group's padding asks for, with ``wide``."""
        if group.mask is None:
            return cls(wide=wide)
        masked = torch.zeros(group.mask.shape, dtype=dtype).masked_fill_(~group.mask, -torch.inf)
        whole = masked[:, None, None, :].expand(-1, heads, 1, -1)
        return cls(whole.reshape(group.size * heads, 1, group.longest), wide)


def has_products(dtype: torch.dtype) -> bool:
    """Whether attention on this CPU in ``dtype`` is for this module."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _has_bfloat16())


@functools.cache
def _has_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def attend(
    packed: torch.Tensor,
    group: TextGroup,
    scores: GroupScores,
    to: torch.Tensor,
    empty: Empty = new_memory,
) -> Attended:
    """Put what a group's tokens attend to into ``to`` (tokens, heads, width), without gradients.

    ``packed``, shape (tokens, 3, heads, width), are queries, keys and values.
    """
    heads = _padded(packed, group, empty).flatten(1, 2)
    weights = _weights(heads, group, scores, empty)
    found = torch.bmm(weights, heads[2], out=empty(*heads.shape[1:], dtype=heads.dtype))
    _unpad(found.unsqueeze(0), group, to.unsqueeze(1), empty)
    return Attended(heads, weights if group.longest <= _LONGEST_KEPT else None)


def attend_backward(
    gradient: torch.Tensor,
    attended: Attended,
    group: TextGroup,
    scores: GroupScores,
    to: torch.Tensor,
    empty: Empty = new_memory,
) -> torch.Tensor:
    """Put the gradient of what was packed into ``to``; ``gradient`` is (tokens, heads, width).

    Return the gradient of the scores, shape (texts * heads, longest, longest).
    """
    heads, weights = attended
    query, key, value = heads
    if weights is None:
        weights = _weights(heads, group, scores, empty)
    padded = _padded(gradient.unsqueeze(1), group, empty)[0]
    if group.mask is not None:
        padded.masked_fill_(~group.mask[:, None, :, None], 0)
    grad = padded.flatten(0, 1)
    flow = torch.bmm(grad, value.mT, out=empty(*weights.shape, dtype=weights.dtype))
    torch.ops.aten._softmax_backward_data.out(flow, weights, -1, flow.dtype, grad_input=flow)
    scale = query.shape[-1] ** _ROOT
    found = empty(*heads.shape, dtype=heads.dtype)
    torch.baddbmm(found[0], flow, key, beta=0, alpha=scale, out=found[0])
    torch.baddbmm(found[1], flow.mT, query, beta=0, alpha=scale, out=found[1])
    torch.bmm(weights.mT, grad, out=found[2])
    _unpad(found, group, to, empty)
    return flow


def _weights(
    heads: torch.Tensor, group: TextGroup, scores: GroupScores, empty: Empty
) -> torch.Tensor:
    """Return the softmax of all scores."""
    query, key, _ = heads
    found = empty(len(query), group.longest, group.longest, dtype=query.dtype)
    added, share = (found, 0) if scores.masked is None else (scores.masked, 1)
    torch.baddbmm(added, query, key.mT, beta=share, alpha=query.shape[-1] ** _ROOT, out=found)
    precise = found
    if found.dtype != torch.float32:
        precise = empty(*found.shape, dtype=torch.float32).copy_(found)
    if scores.wide is not None:
        precise.view(group.size, -1, *found.shape[1:]).add_(scores.wide)
    torch.softmax(precise, -1, out=precise)
    return found if precise is found else found.copy_(precise)


def _padded(rows: torch.Tensor, group: TextGroup, empty: Empty) -> torch.Tensor:
    """Return rows (tokens, parts, heads, width) as (parts, texts, heads, longest, width)."""
    whole = rows if group.gather is None else rows.index_select(0, group.gather)
    turned = whole.view(group.size, group.longest, *rows.shape[1:]).permute(2, 0, 3, 1, 4)
    return empty(*turned.shape, dtype=rows.dtype).copy_(turned)


def _unpad(heads: torch.Tensor, group: TextGroup, to: torch.Tensor, empty: Empty) -> None:
    """Put (parts, texts * heads, longest, width) into rows (tokens, parts, heads, width)."""
    turned = heads.view(len(heads), group.size, -1, *heads.shape[2:]).permute(1, 3, 0, 2, 4)
    if group.kept is None:
        to.view(turned.shape).copy_(turned)
        return
    whole = empty(*turned.shape, dtype=turned.dtype).copy_(turned)
    torch.index_select(whole.flatten(0, 1), 0, group.kept, out=to)


def attend_with_gradients(
    packed: torch.Tensor, group: TextGroup, wide: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what a group's tokens attend to, shape (tokens, heads, width).

    ``packed``, shape (tokens, 3, heads, width), are queries, keys and values. ``wide``, float32 of
    shape (texts or 1, heads or 1, longest, longest), is added to the scores.
    """
    found: torch.Tensor = _Attend.apply(packed, wide, group)  # type: ignore[no-untyped-call]
    return found


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: torch.Tensor, wide: torch.Tensor | None, group: TextGroup
    ) -> torch.Tensor:
        scores = GroupScores.of(group, packed.shape[2], packed.dtype, wide)
        found = packed.new_empty(packed[:, 0].shape)
        attended = attend(packed, group, scores, found)
        if any(ctx.needs_input_grad):
            ctx.group, ctx.shape = group, packed.shape
            ctx.save_for_backward(*scores, *attended)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        masked, wide, heads, weights = ctx.saved_tensors
        to = gradient.new_empty(ctx.shape)
        scores, attended = GroupScores(masked, wide), Attended(heads, weights)
        flow = attend_backward(gradient, attended, ctx.group, scores, to)
        for_wide = None
        if wide is not None and ctx.needs_input_grad[1]:
            for_wide = (
                flow.view(ctx.group.size, -1, *flow.shape[1:]).float().sum_to_size(wide.shape)
            )
        return to, for_wide, None
