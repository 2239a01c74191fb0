"""Where the texts of a flat row of tokens stand, and attention within each of them.

Everything in a transformer but attention sees one token at a time, so it runs on the flat row.
Attention has two forms: PyTorch's variable-length kernel on a GPU in 16 bits, which needs no
padding at all, and texts of about the same length padded to a group elsewhere
(``grouped_attention``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch.nn import functional

__all__ = ["Attention", "Bias", "TextLayout", "VarlenAttention"]

Bias = Callable[[int, torch.device], torch.Tensor]
"""What is added to the scores of texts of a length: length to (1, heads, length, length)."""


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
