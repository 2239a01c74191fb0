"""Blocks of neighbouring tokens that attention goes over, and where texts begin and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["SpanTable", "Spans", "TextBlocks", "text_blocks"]

_ALIGNED = 4


@dataclass(frozen=True, slots=True)
class Spans:
    """Where texts and blocks of tokens begin and end, all int32.

    For each token the first row of its text and the row behind its last, (tokens,) or longer.
    ``blocks`` (blocks + 1,) holds the first row of each block, and the number of tokens.
    ``wholes`` and ``parts``, each (some, 2), say the same otherwise: the first row and the row
    behind the last of blocks of whole texts, and of parts of texts.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    blocks: torch.Tensor
    wholes: torch.Tensor
    parts: torch.Tensor


class TextBlocks(NamedTuple):
    """The numbers behind ``Spans``: first rows, and pairs of rows."""

    firsts: list[int]
    wholes: list[tuple[int, int]]
    parts: list[tuple[int, int]]

    @classmethod
    def of(cls, lengths: Sequence[int], most: int, whole: int) -> TextBlocks:
        """Return the blocks of texts; those of up to ``whole`` tokens are not cut into parts.

        Blocks else have at most ``most`` tokens. Where ``whole`` is 0 each block is a part.
        """
        firsts = text_blocks(lengths, most)
        if not whole:
            return cls(firsts, [], list(pairwise(firsts)))
        wholes: list[tuple[int, int]] = []
        parts: list[tuple[int, int]] = []
        row = 0
        for length in lengths:
            stop = row + length
            if length > whole:
                parts += [(first, min(first + most, stop)) for first in range(row, stop, most)]
            elif wholes and wholes[-1][1] == row and stop - wholes[-1][0] <= most:
                wholes[-1] = wholes[-1][0], stop
            else:
                wholes.append((row, stop))
            row = stop
        return cls(firsts, wholes, parts)


@dataclass(frozen=True, slots=True)
class SpanTable:
    """The spans of a batch in one row of numbers, which goes to a GPU at once.

    There is room for so many blocks, wholes and parts.
    """

    tokens: int
    blocks: int
    wholes: int
    parts: int

    @classmethod
    def fitting(cls, blocks: TextBlocks) -> SpanTable:
        """Return the table that holds these blocks, and no more."""
        firsts, wholes, parts = blocks
        return cls(firsts[-1], len(firsts) - 1, len(wholes), len(parts))

    @property
    def length(self) -> int:
        """Numbers in the row."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        # Blocks without tokens begin behind the last one; kernels want rows that begin aligned.
        counts = self.tokens, self.tokens, self.blocks, 2 * self.wholes - 1, 2 * self.parts - 1
        return [(count // _ALIGNED + 1) * _ALIGNED for count in counts]

    def made(self, lengths: Sequence[int], blocks: TextBlocks) -> torch.Tensor:
        """Return the row, shape (length,), int32, on the host.

        ``lengths`` are those of all ``tokens``. Blocks, wholes and parts beyond those given hold
        nothing.
        """
        sizes = np.asarray(lengths)
        ends = sizes.cumsum()
        row = np.full(self.length, self.tokens, dtype=np.int32)
        places = np.cumsum([0, *self._sizes])
        row[: self.tokens] = np.repeat(ends - sizes, sizes)
        row[places[1] : places[1] + self.tokens] = np.repeat(ends, sizes)
        for place, numbers in zip(places[2:], blocks, strict=False):
            flat = np.asarray(numbers, dtype=np.int32).ravel()
            row[place : place + flat.size] = flat
        return torch.from_numpy(row)

    def spans(self, row: torch.Tensor) -> Spans:
        """Return the parts of a row."""
        starts, ends, blocks, wholes, parts = torch.split_with_sizes(row, self._sizes)
        return Spans(
            starts,
            ends,
            blocks[: self.blocks + 1],
            wholes[: 2 * self.wholes].view(-1, 2),
            parts[: 2 * self.parts].view(-1, 2),
        )


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
