"""Blocks of neighbouring tokens that attention goes over, and where texts begin and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["SpanTable", "Spans", "text_blocks"]

_ALIGNED = 4


@dataclass(frozen=True, slots=True)
class Spans:
    """Where texts and blocks of tokens begin and end, all int32.

    For each token the first row of its text and the row behind its last, (tokens,) or longer.
    ``blocks`` (blocks + 1,) holds the first row of each block, and the number of tokens.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    blocks: torch.Tensor


@dataclass(frozen=True, slots=True)
class SpanTable:
    """The spans of a batch in one row of numbers, which goes to a GPU at once."""

    tokens: int
    blocks: int

    @property
    def length(self) -> int:
        """Numbers in the row."""
        return 2 * self._each + self.blocks + 1

    @property
    def _each(self) -> int:
        # Blocks without tokens begin behind the last one; kernels want rows that begin aligned.
        return (self.tokens // _ALIGNED + 1) * _ALIGNED

    def made(self, lengths: Sequence[int], firsts: Sequence[int]) -> torch.Tensor:
        """Return the row, shape (length,), int32, on the host.

        ``lengths`` are those of all ``tokens``, ``firsts`` what ``text_blocks`` gives. Blocks
        beyond those hold nothing.
        """
        sizes = np.asarray(lengths)
        ends = sizes.cumsum()
        row = np.full(self.length, self.tokens, dtype=np.int32)
        row[: self.tokens] = np.repeat(ends - sizes, sizes)
        row[self._each : self._each + self.tokens] = np.repeat(ends, sizes)
        row[2 * self._each : 2 * self._each + len(firsts)] = firsts
        return torch.from_numpy(row)

    def spans(self, row: torch.Tensor) -> Spans:
        """Return the parts of a row."""
        return Spans(*torch.split_with_sizes(row, (self._each, self._each, self.blocks + 1)))


def text_blocks(lengths: Sequence[int], most: int) -> list[int]:
    """Return the first row of each block of at most ``most`` tokens, and the number of tokens.

    Neighbouring texts that fit share a block; a longer one begins with a block of its own, so that
    its tokens meet as few of other texts as can be.
    """
    firsts: list[int] = []
    row = room = 0
    for length in lengths:
        if length > room:
            firsts += range(row, row + length, most)
            room = most - length if length <= most else 0
        else:
            room -= length
        row += length
    return [*firsts, row]
