"""Where the texts of a flat row of tokens stand, and attention within each of them.

Everything in a transformer but attention sees one token at a time, so it runs on the flat row.
Attention has two forms: PyTorch's variable-length kernel on a GPU in 16 bits, which needs no
padding at all, and texts of about the same length padded to a group elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch.nn import functional

__all__ = ["Attention", "Bias", "GroupedAttention", "TextLayout", "VarlenAttention"]

Bias = Callable[[int, torch.device], torch.Tensor]
"""What is added to the scores of texts of a length: length to (1, heads, length, length)."""

_GROUP_TOKENS = 16_384
_GROUP_SLACK = 1.125
_GROUP_STEP = 4


@dataclass(frozen=True)
class TextLayout:
    """Lengths of texts, ``lengths`` (texts,) on the device and ``host_lengths`` on the host."""

    lengths: torch.Tensor
    host_lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens in all texts together."""
        return sum(self.host_lengths)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.host_lengths, default=0)

    @cached_property
    def starts(self) -> torch.Tensor:
        """Row of each text's first token, shape (texts,)."""
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def ends(self) -> torch.Tensor:
        """Row of each text's last token, shape (texts,)."""
        return self.lengths.cumsum(0) - 1

    @cached_property
    def text_of_token(self) -> torch.Tensor:
        """Which text each token belongs to, shape (tokens,)."""
        texts = torch.arange(len(self.host_lengths), device=self.lengths.device)
        return torch.repeat_interleave(texts, self.lengths, output_size=self.tokens)

    @cached_property
    def positions(self) -> torch.Tensor:
        """Place of each token within its text, from 0, shape (tokens,)."""
        rows = torch.arange(self.tokens, device=self.lengths.device)
        return rows - self.starts[self.text_of_token]

    @cached_property
    def cumulative(self) -> torch.Tensor:
        """Row where each text begins, and the number of rows; shape (texts + 1,), int32."""
        return functional.pad(self.lengths.cumsum(0), (1, 0)).to(torch.int32)


class Attention(Protocol):
    """Attention of every token to the tokens of its own text."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        window: int | None = None,
        bias: Bias | None = None,
    ) -> torch.Tensor:
        """Return shape (tokens, heads * width) from three tensors (tokens, heads, width).

        With ``window`` a token sees those at most so many places away; ``bias`` is added to the
        scores.
        """


class VarlenAttention:
    """PyTorch's variable-length attention: nothing is padded (CUDA, float16 or bfloat16)."""

    def __init__(self, layout: TextLayout) -> None:
        self._layout = layout

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        window: int | None = None,
        bias: Bias | None = None,
    ) -> torch.Tensor:
        """Return shape (tokens, heads * width); ``bias`` must be None."""
        from torch.nn.attention.varlen import varlen_attn

        assert bias is None
        layout = self._layout
        seen: dict[str, Any] = {} if window is None else {"window_size": (window, window)}
        found = varlen_attn(
            query,
            key,
            value,
            layout.cumulative,
            layout.cumulative,
            layout.longest,
            layout.longest,
            **seen,
        )
        assert isinstance(found, torch.Tensor)
        return found.flatten(1)


@dataclass(frozen=True)
class _Group:
    """Texts of about the same length: ``size`` texts in the flat rows ``rows``.

    Where lengths differ, ``gather`` (size * longest,) says which row within the group stands at
    each padded place, ``kept`` (tokens,) which places hold a token, and ``mask`` (size, longest)
    the same as truth values.
    """

    rows: slice
    size: int
    longest: int
    gather: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @property
    def empty(self) -> torch.Tensor:
        """Which padded places hold no token, shape (size * longest,)."""
        assert self.mask is not None
        return ~self.mask.flatten()


class GroupedAttention:
    """Padded attention in groups of texts of about the same length.

    The texts must lie in the order of their lengths, else there are as many groups as changes.
    """

    def __init__(self, layout: TextLayout) -> None:
        self._groups = tuple(_groups(layout))

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
        if query.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
            # PyTorch's kernel for a CPU is several times as slow in 16 bits.
            query, key, value = query.float(), key.float(), value.float()
        sizes = [group.rows.stop - group.rows.start for group in self._groups]
        three = [torch.split_with_sizes(tensor, sizes) for tensor in (query, key, value)]
        parts = [
            _attend(group, own_query, own_key, own_value, window, bias)
            for group, own_query, own_key, own_value in zip(self._groups, *three, strict=True)
        ]
        return (torch.cat(parts) if len(parts) != 1 else parts[0]).to(dtype)


def _groups(layout: TextLayout) -> Iterator[_Group]:
    lengths = layout.host_lengths
    start = row = 0
    while start < len(lengths):
        shortest = longest = lengths[start]
        end, tokens = start + 1, longest
        while end < len(lengths):
            low, high = min(shortest, lengths[end]), max(longest, lengths[end])
            padded = high * (end + 1 - start)
            if high > low * _GROUP_SLACK + _GROUP_STEP or padded > _GROUP_TOKENS:
                break
            shortest, longest = low, high
            tokens += lengths[end]
            end += 1
        own = layout.lengths[start:end]
        yield _group(own, slice(row, row + tokens), end - start, shortest, longest)
        start, row = end, row + tokens


def _group(lengths: torch.Tensor, rows: slice, size: int, shortest: int, longest: int) -> _Group:
    if shortest == longest:
        return _Group(rows, size, longest)
    places = torch.arange(longest, device=lengths.device)
    mask = places < lengths.unsqueeze(1)
    begins = (lengths.cumsum(0) - lengths).unsqueeze(1)
    # A padded place takes a row that is there anyway; nothing looks at it.
    gather = torch.where(mask, begins + places, begins).flatten()
    return _Group(rows, size, longest, gather, mask.flatten().nonzero().squeeze(1), mask)


def _attend(
    group: _Group,
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
    def forward(ctx: Any, rows: torch.Tensor, group: _Group) -> torch.Tensor:
        ctx.group = group
        return rows.index_select(0, group.gather)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # Nothing has looked at such a place, so that no gradient comes from there.
        return _Unpad.apply(gradient, ctx.group), None  # type: ignore[no-untyped-call]


class _Unpad(torch.autograd.Function):
    """From a group's padded places to its flat rows."""

    @staticmethod
    def forward(ctx: Any, places: torch.Tensor, group: _Group) -> torch.Tensor:
        ctx.group = group
        return places.index_select(0, group.kept)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        padded: torch.Tensor = _Pad.apply(gradient, ctx.group)  # type: ignore[no-untyped-call]
        empty = ctx.group.empty.view(-1, *[1] * (padded.dim() - 1))
        return padded.masked_fill(empty, 0.0), None


def _mask(
    group: _Group, like: torch.Tensor, window: int | None, bias: Bias | None
) -> torch.Tensor | None:
    seen = None if group.mask is None else group.mask[:, None, None, :]
    if window is not None and window < group.longest - 1:
        places = torch.arange(group.longest, device=like.device)
        near = (places[:, None] - places[None, :]).abs() <= window
        if group.mask is None or seen is None:
            seen = near
        else:
            # A padded place far from all tokens must see something: a softmax needs a term.
            seen = seen & (near | ~group.mask[:, None, :, None])
    if bias is None:
        return seen
    added = bias(group.longest, like.device).to(like.dtype)
    return added if seen is None else added.masked_fill(~seen, -torch.inf)
