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

_QUESTIONS = 256
_SCORES = 2**20
"""Scores that are computed at a time, more or less: as many as a cache holds."""

_GROUP = 32
"""Scores of which the highest is looked at before the others."""

_CONVERTED = 1024
"""Rows that are turned into float32 at a time: 2 MiB at 512 numbers, which a cache holds."""

_SPARSE = 1 / 8
"""Where a smaller share of the rows is allowed, those are gathered first."""


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

    def take(self, rows: np.ndarray) -> VectorBlock:
        """Return a block of some of the rows, copied."""
        bytes_ = None if self.bytes is None else self.bytes[rows]
        scales = None if self.scales is None else self.scales[rows]
        return VectorBlock(self.halves[rows], bytes_, scales)


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
    parts = [
        _search(questions[start : start + _QUESTIONS], blocks, k, allowed, coarse)
        for start in range(0, len(questions), _QUESTIONS)
    ]
    rows = np.full((len(questions), k), -1, np.int64)
    scores = np.full((len(questions), k), -np.inf, np.float32)
    for number, part in enumerate(parts):
        own = slice(number * _QUESTIONS, number * _QUESTIONS + len(part.rows))
        rows[own, : part.rows.shape[1]], scores[own, : part.rows.shape[1]] = part.rows, part.scores
    return Neighbours(rows, scores)


def _search(
    questions: np.ndarray,
    blocks: Sequence[VectorBlock],
    k: int,
    allowed: np.ndarray | None,
    coarse: bool,
) -> Neighbours:
    best = _Best(len(questions), max(k, RESCORED) if coarse else k)
    first = 0
    for block in blocks:
        permitted = None if allowed is None else allowed[first : first + len(block)]
        if len(block) == 0:
            continue
        if permitted is None or permitted.mean() >= _SPARSE:
            _search_block(questions, block, first, permitted, best, coarse)
        elif permitted.any():
            chosen = np.flatnonzero(permitted)
            _search_block(questions, block.take(chosen), chosen + first, None, best, coarse)
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

    def add(self, scores: torch.Tensor, rows: torch.Tensor) -> None:
        """Take in the scores (questions, n) of ``rows`` (n,); n is a multiple of a group's size.

        Only groups with a score above the worst that is kept are looked into: after the first
        blocks those are few.
        """
        places = rows.expand(len(scores), -1)
        if self._scores.shape[1] == self.wanted:
            grouped = scores.view(len(scores), -1, _GROUP)
            highest = grouped.amax(2)
            promising = int((highest > self._scores[:, -1:]).sum(1).max())
            if promising == 0:
                return
            if promising * 2 < highest.shape[1]:
                groups = highest.topk(promising, dim=1).indices.unsqueeze(2)
                scores = grouped.gather(1, groups.expand(-1, -1, _GROUP)).flatten(1)
                columns = groups * _GROUP + torch.arange(_GROUP)
                places = rows[columns.flatten(1)]
        scores = torch.cat((self._scores, scores), 1)
        places = torch.cat((self._rows, places), 1)
        self._scores, order = scores.topk(min(self.wanted, scores.shape[1]), dim=1)
        self._rows = places.gather(1, order)

    def neighbours(self) -> Neighbours:
        """Return what was found; rows that were not allowed are none."""
        rows = self._rows.masked_fill(self._scores == -torch.inf, -1)
        return Neighbours(rows.numpy(), self._scores.numpy())


def _search_block(
    questions: np.ndarray,
    block: VectorBlock,
    first: int | np.ndarray,
    allowed: np.ndarray | None,
    best: _Best,
    coarse: bool,
) -> None:
    """Compare questions with a block whose rows are numbered from ``first`` on, or are those."""
    left = torch.from_numpy(quantise(questions)[0] if coarse else questions)
    numbers = np.arange(first, first + len(block)) if isinstance(first, int) else first
    width = _rounded(min(max(_SCORES // len(questions), _CONVERTED), 16 * _CONVERTED, len(block)))
    scores = torch.empty(len(questions), width)
    rows = torch.empty(width, dtype=torch.int64)
    buffer = torch.empty(min(_CONVERTED, len(block)), questions.shape[1])
    for start in range(0, len(block), width):
        own = slice(start, min(start + width, len(block)))
        size = own.stop - own.start
        part = scores[:, :size]
        if coarse:
            assert block.bytes is not None
            assert block.scales is not None
            # A question's own scale changes nothing in the order of its rows.
            _multiply_bytes(left, torch.from_numpy(block.bytes[own]), part)
            part *= torch.from_numpy(block.scales[own])
        else:
            _multiply_halves(left, torch.from_numpy(block.halves[own]), part, buffer)
        if allowed is not None:
            part.masked_fill_(torch.from_numpy(~allowed[own]), -torch.inf)
        whole = _rounded(size)
        scores[:, size:whole] = -torch.inf
        rows[:size] = torch.from_numpy(numbers[own])
        best.add(scores[:, :whole], rows[:whole])


def _rounded(size: int) -> int:
    return -(-size // _GROUP) * _GROUP


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
    vectors = torch.empty(len(rows), blocks[0].halves.shape[1])
    limits = np.searchsorted(rows, starts)
    for block, start, first, stop in zip(blocks, starts, limits, limits[1:], strict=False):
        if stop > first:
            # torch turns halves into floats ten times as fast as numpy.
            chosen = torch.from_numpy(block.halves[rows[first:stop] - start])
            vectors[first:stop].copy_(chosen)
    return vectors.numpy()


def merged(
    questions: np.ndarray, blocks: Sequence[VectorBlock], found: Sequence[Neighbours], k: int
) -> Neighbours:
    """Return the best ``k`` of rows that were found in several ways, compared by float16.

    No row may be found in two ways.
    """
    rows = np.concatenate([part.rows for part in found], axis=1)
    return _ordered(_rescored(questions, blocks, rows), k)


def _rescored(questions: np.ndarray, blocks: Sequence[VectorBlock], rows: np.ndarray) -> Neighbours:
    present = rows >= 0
    distinct, place = np.unique(rows, return_inverse=True)
    place = place.reshape(rows.shape) - int(np.searchsorted(distinct, 0))
    vectors = torch.from_numpy(gathered(blocks, distinct[distinct >= 0]))
    scores = np.full(rows.shape, -np.inf, np.float32)
    if len(vectors) and len(questions) == 1:
        # The vectors are this question's alone: nothing to pick out for it.
        own = (vectors @ torch.from_numpy(questions[0])).numpy()
        scores[present] = own[place[present]]
    elif len(vectors):
        for number, question in enumerate(questions):
            own = present[number]
            found = vectors[torch.from_numpy(place[number, own])]
            scores[number, own] = (found @ torch.from_numpy(question)).numpy()
    return Neighbours(rows, scores)


def _ordered(found: Neighbours, k: int) -> Neighbours:
    """Return the best ``k``, equal scores in the order of their rows."""
    order = np.lexsort((found.rows, -found.scores), axis=1)[:, :k]
    return Neighbours(
        np.take_along_axis(found.rows, order, 1), np.take_along_axis(found.scores, order, 1)
    )
