"""Padded attention in groups of texts of about the same length."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from clrelkt.encoders.transformer.attention_products import (
    MOST_SCORES,
    attend_with_gradients,
    has_products,
)
from clrelkt.encoders.transformer.layout import Bias, TextLayout
from clrelkt.encoders.transformer.text_groups import TextGroup, text_groups

__all__ = ["GroupedAttention"]


class GroupedAttention:
    """Padded attention in groups of texts of about the same length.

    The texts must lie in the order of their lengths, else there are as many groups as changes.
    """

    def __init__(self, layout: TextLayout) -> None:
        cpu = layout.lengths.device.type == "cpu"
        self._groups = tuple(text_groups(layout, MOST_SCORES if cpu else None))

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        window: int | None = None,
        bias: Bias | None = None,
    ) -> torch.Tensor:
        """Return shape (tokens, heads * width)."""
        dtype = query.dtype
        cpu = query.device.type == "cpu"
        attend = _attend_by_products if cpu and has_products(dtype) else _attend
        if cpu and dtype in (torch.bfloat16, torch.float16) and attend is _attend:
            # PyTorch's kernel for a CPU is several times as slow in 16 bits.
            query, key, value = query.float(), key.float(), value.float()
        sizes = [group.rows.stop - group.rows.start for group in self._groups]
        three = [torch.split_with_sizes(tensor, sizes) for tensor in (query, key, value)]
        parts = [
            attend(group, own_query, own_key, own_value, window, bias)
            for group, own_query, own_key, own_value in zip(self._groups, *three, strict=True)
        ]
        return (torch.cat(parts) if len(parts) != 1 else parts[0]).to(dtype)


def _attend_by_products(
    group: TextGroup,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    bias: Bias | None,
) -> torch.Tensor:
    wide = None if bias is None else bias(group.longest, query.device).float()
    if window is not None and window < group.longest - 1:
        far = torch.zeros(1, 1, group.longest, group.longest)
        far = far.masked_fill(~_near(group, window, query.device), -torch.inf)
        wide = far if wide is None else wide + far
    packed = torch.stack([query, key, value], dim=1)
    return attend_with_gradients(packed, group, wide).flatten(1)


def _attend(
    group: TextGroup,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    bias: Bias | None,
) -> torch.Tensor:
    heads, width = query.shape[1:]

    def padded(tensor: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor = tensor if group.gather is None else _Pad.apply(tensor, group)  # type: ignore[no-untyped-call]
        return whole.view(group.size, group.longest, heads, width).transpose(1, 2)

    found = functional.scaled_dot_product_attention(
        padded(query),
        padded(key),
        padded(value),
        attn_mask=_mask(group, query, window, bias),
    )
    flat = found.transpose(1, 2).reshape(group.size * group.longest, heads * width)
    unpadded: torch.Tensor = flat if group.kept is None else _Unpad.apply(flat, group)  # type: ignore[no-untyped-call]
    return unpadded


class _Pad(torch.autograd.Function):
    """From a group's flat rows to its padded places; what is at a place without a token is lost."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: TextGroup) -> torch.Tensor:
        ctx.group = group
        return rows.index_select(0, group.gather)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Nothing has looked at such a place, so that no gradient comes from there.
        return _Unpad.apply(gradient, ctx.group), None  # type: ignore[no-untyped-call]


class _Unpad(torch.autograd.Function):
    """From a group's padded places to its flat rows."""

    @staticmethod
    def forward(ctx: Any, places: torch.Tensor, group: TextGroup) -> torch.Tensor:
        ctx.group = group
        return places.index_select(0, group.kept)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        padded: torch.Tensor = _Pad.apply(gradient, ctx.group)  # type: ignore[no-untyped-call]
        empty = ctx.group.empty.view(-1, *[1] * (padded.dim() - 1))
        return padded.masked_fill(empty, 0.0), None


def _mask(
    group: TextGroup, like: torch.Tensor, window: int | None, bias: Bias | None
) -> torch.Tensor | None:
    seen = None if group.mask is None else group.mask[:, None, None, :]
    if window is not None and window < group.longest - 1:
        near = _near(group, window, like.device)
        seen = near if seen is None else seen & near
    if bias is None:
        return seen
    added = bias(group.longest, like.device).to(like.dtype)
    return added if seen is None else added.masked_fill(~seen, -torch.inf)


def _near(group: TextGroup, window: int, device: torch.device) -> torch.Tensor:
    """Return which places are in reach, shape (longest, longest) or (size, 1, longest, longest)."""
    places = torch.arange(group.longest, device=device)
    near = (places[:, None] - places[None, :]).abs() <= window
    if group.mask is None:
        return near
    # A padded place far from all tokens must see something: a softmax needs a term.
    return near | ~group.mask[:, None, :, None]
