"""Unit vectors in float16 and in 8 bits, and the nearest among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

__all__ = [
    "RESCORED",
    "Neighbours",
    "VectorBlock",
    "exact_search",
    "gathered",
    "merged",
    "quantise",
    "similarities",
]

RESCORED = 100
"""How many of the best by 8 bits are compared again by float16."""

_BLOCK = 8192
_CONVERTED = 1024
"""Rows that are turned into float32 at a time: 2 MiB at 512 numbers, which a cache holds."""


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Vectors of a segment; arrays may lie in mapped files.

    ``halves`` has shape (rows, dimension), float16. ``bytes`` (rows, dimension), int8, times
    ``scales`` (rows,), float32, are about the same; both None where they are not kept.
    """

    halves: np.ndarray
    bytes: np.ndarray | None = None
    scales: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.halves.shape[0])


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest rows to each question, best first.

    ``rows`` has shape (questions, k), int64, and ``scores``, float32, their cosines. Where fewer
    were found the rest of ``rows`` is -1.
    """

    rows: np.ndarray
    scores: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows and the scores of each question, those that were found."""
        for rows, scores in zip(self.rows, self.scores, strict=True):
            found = rows >= 0
            yield rows[found], scores[found]


def quantise(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (rows, dimension) as int8, and the scale (rows,) of each row."""
    scales = np.abs(vectors).max(axis=1, initial=0.0) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def similarities(questions: np.ndarray, integers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the cosines of questions (q, d), float32, and 8-bit rows, shape (q, rows)."""
    scores = torch.empty(len(questions), len(integers))
    asked, own = quantise(questions)
    _multiply_bytes(torch.from_numpy(asked), torch.from_numpy(integers), scores)
    scores *= torch.from_numpy(own)[:, None]
    scores *= torch.from_numpy(np.asarray(scales))
    return scores.numpy()


def exact_search(
    questions: np.ndarray, blocks: Sequence[VectorBlock], k: int, allowed: np.ndarray | None = None
) -> Neighbours:
    """Return the ``k`` nearest rows of all blocks, numbered through, to each question.

    Blocks with 8-bit vectors are read by those, and the best of all blocks are compared again by
    float16. Equal scores stand in the order of the rows.

    Args:
        questions: unit vectors, shape (questions, dimension), float32.
        blocks: the vectors that are searched.
        k: how many are wanted.
        allowed: which rows may be found, shape (rows,), bool; None is every one.
    """
    coarse = all(block.bytes is not None for block in blocks)
    wanted = max(k, RESCORED) if coarse else k
    best = _Best(len(questions), wanted)
    first = 0
    for block in blocks:
        permitted = None if allowed is None else allowed[first : first + len(block)]
        if permitted is None or permitted.any():
            _search_block(questions, block, first, permitted, best, coarse)
        first += len(block)
    found = best.neighbours()
    if coarse:
        found = _rescored(questions, blocks, found.rows)
    return _ordered(found, k)


class _Best:
    """The best rows so far; shapes (questions, up to ``wanted``)."""

    def __init__(self, questions: int, wanted: int) -> None:
        self.wanted = wanted
        self._scores = torch.empty(questions, 0)
        self._rows = torch.empty(questions, 0, dtype=torch.int64)

    def add(self, scores: torch.Tensor, first: int) -> None:
        """Take in the scores (questions, rows) of the rows from ``first`` on."""
        values, rows = scores.topk(min(self.wanted, scores.shape[1]), dim=1)
        scores = torch.cat((self._scores, values), 1)
        rows = torch.cat((self._rows, rows + first), 1)
        self._scores, order = scores.topk(min(self.wanted, scores.shape[1]), dim=1)
        self._rows = rows.gather(1, order)

    def neighbours(self) -> Neighbours:
        rows = self._rows.masked_fill(self._scores == -torch.inf, -1)
        return Neighbours(rows.numpy(), self._scores.numpy())


def _search_block(
    questions: np.ndarray,
    block: VectorBlock,
    first: int,
    allowed: np.ndarray | None,
    best: _Best,
    coarse: bool,
) -> None:
    asked, scale = quantise(questions) if coarse else (questions, np.ones(1, np.float32))
    left, factor = torch.from_numpy(asked), torch.from_numpy(scale)[:, None]
    scores = torch.empty(len(questions), min(_BLOCK, len(block)))
    buffer = torch.empty(min(_CONVERTED, len(block)), questions.shape[1])
    for start in range(0, len(block), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(block)))
        part = scores[:, : rows.stop - rows.start]
        if coarse:
            assert block.bytes is not None
            assert block.scales is not None
            _multiply_bytes(left, torch.from_numpy(block.bytes[rows]), part)
            part *= torch.from_numpy(block.scales[rows]) * factor
        else:
            _multiply_halves(left, torch.from_numpy(block.halves[rows]), part, buffer)
        if allowed is not None:
            part.masked_fill_(torch.from_numpy(~allowed[rows]), -torch.inf)
        best.add(part, first + start)


def _multiply_halves(
    left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, buffer: torch.Tensor
) -> None:
    for start in range(0, len(right), len(buffer)):
        rows = right[start : start + len(buffer)]
        converted = buffer[: len(rows)].copy_(rows)
        torch.mm(left, converted.T, out=out[:, start : start + len(rows)])


def _multiply_bytes(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    if _integers_are_exact():
        out.copy_(torch._int_mm(left, right.T))
    else:
        torch.mm(left.float(), right.T.float(), out=out)


@cache
def _integers_are_exact() -> bool:
    """Tell whether this machine multiplies bytes without the overflow that some have."""
    largest = torch.full((1, 512), 127, dtype=torch.int8)
    try:
        product = torch._int_mm(largest, torch.cat((largest, -largest)).T)
    except RuntimeError:
        return False
    return bool((product == torch.tensor([[1, -1]]) * 512 * 127**2).all())


def gathered(blocks: Sequence[VectorBlock], rows: np.ndarray) -> np.ndarray:
    """Return the vectors of ``rows``, rising numbers through all blocks, as float32."""
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    vectors = np.empty((len(rows), blocks[0].halves.shape[1]), np.float32)
    limits = np.searchsorted(rows, starts)
    for block, start, first, stop in zip(blocks, starts, limits, limits[1:], strict=False):
        vectors[first:stop] = block.halves[rows[first:stop] - start]
    return vectors


def merged(
    questions: np.ndarray, blocks: Sequence[VectorBlock], found: Sequence[Neighbours], k: int
) -> Neighbours:
    """Return the best ``k`` of rows that were found in several ways, compared by float16.

    No row may be found in two ways.
    """
    rows = np.concatenate([part.rows for part in found], axis=1)
    return _ordered(_rescored(questions, blocks, rows), k)


def _rescored(questions: np.ndarray, blocks: Sequence[VectorBlock], rows: np.ndarray) -> Neighbours:
    scores = np.full(rows.shape, -np.inf, np.float32)
    present = rows >= 0
    distinct, place = np.unique(rows[present], return_inverse=True)
    if len(distinct):
        vectors = gathered(blocks, distinct)
        question = np.nonzero(present)[0]
        scores[present] = np.einsum("nd,nd->n", questions[question], vectors[place])
    return Neighbours(rows, scores)


def _ordered(found: Neighbours, k: int) -> Neighbours:
    """Return the best ``k``, equal scores in the order of their rows."""
    order = np.lexsort((found.rows, -found.scores), axis=1)[:, :k]
    return Neighbours(
        np.take_along_axis(found.rows, order, 1), np.take_along_axis(found.scores, order, 1)
    )
