"""Groups of texts of about the same length, which attention pads to the longest of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clrelkt.encoders.transformer.layout import TextLayout

__all__ = ["TextGroup", "text_groups"]

_TOKENS = 16_384
_SLACK = 1.125
_STEP = 4


@dataclass(frozen=True)
class TextGroup:
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


def text_groups(layout: TextLayout, most_scores: int | None = None) -> Iterator[TextGroup]:
    """Yield groups of neighbouring texts.

    The texts must lie in the order of their lengths, else there are as many groups as changes.
    With ``most_scores`` a group of several texts has at most so many pairs of tokens.
    """
    lengths = layout.host_lengths
    start = row = 0
    while start < len(lengths):
        shortest = longest = lengths[start]
        end, tokens = start + 1, longest
        while end < len(lengths):
            low, high = min(shortest, lengths[end]), max(longest, lengths[end])
            padded = high * (end + 1 - start)
            if high > low * _SLACK + _STEP or padded > _TOKENS:
                break
            if most_scores is not None and padded * high > most_scores:
                break
            shortest, longest = low, high
            tokens += lengths[end]
            end += 1
        own = layout.lengths[start:end]
        yield _group(own, slice(row, row + tokens), end - start, shortest, longest)
        start, row = end, row + tokens


def _group(lengths: torch.Tensor, rows: slice, size: int, shortest: int, longest: int) -> TextGroup:
    if shortest == longest:
        return TextGroup(rows, size, longest)
    places = torch.arange(longest, device=lengths.device)
    mask = places < lengths.unsqueeze(1)
    begins = (lengths.cumsum(0) - lengths).unsqueeze(1)
    # A padded place takes a row that is there anyway; nothing looks at it.
    gather = torch.where(mask, begins + places, begins).flatten()
    return TextGroup(rows, size, longest, gather, mask.flatten().nonzero().squeeze(1), mask)
