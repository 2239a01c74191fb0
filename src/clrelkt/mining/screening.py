"""A quick look at all scores that misses nothing: which candidates are worth an exact one.

A screen multiplies matrices of low precision and keeps the pairs whose score lies within its error
of what a row still takes. The error is a proven bound, so that whatever the exact score would
choose is among the pairs kept, and the choice is the same as if every score were exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from clrelkt.mining.similarity import on_grid

__all__ = ["Limits", "LowPrecision", "PlainScreen", "Screen", "low_precision", "score_error"]

_ROWS_AT_ONCE = 65_536
_WIDTH = 16_384
# Dot products of single precision sum in an order and with a rounding that the device chooses;
# half of this times the number of terms bounds them when rounded to nearest, this when cut off.
_SUMMING = 2.0**-23
_LIMIT_ROUNDING = 2.0**-23


@dataclass(frozen=True, slots=True)
class LowPrecision:
    """Vectors as a screen multiplies them.

    ``vectors`` has shape (rows, dimension, padded with zeros to a multiple of 64), float16 on a
    GPU and float32 on a CPU. ``error`` (rows,) is the Euclidean distance of each to the vector on
    the grid, ``norm`` (rows,) its length, both float64 and rounded up.
    """

    vectors: torch.Tensor
    error: torch.Tensor
    norm: torch.Tensor


def low_precision(
    vectors: torch.Tensor, order: torch.Tensor | None = None, *, compiled: bool = False
) -> LowPrecision:
    """Round unit vectors, shape (rows, dimension), float32, to what their device multiplies fast.

    ``order`` (rows,) says which vector each row of the result is; all in order where not given.
    ``compiled`` does it in one Triton kernel, with the same vectors.
    """
    rows, dimension = vectors.shape
    kind = torch.float16 if vectors.device.type == "cuda" else torch.float32
    low = torch.zeros((rows, -(-dimension // 64) * 64), dtype=kind, device=vectors.device)
    if compiled:
        from clrelkt.mining.kernels import round_rows

        error, norm = round_rows(vectors, order, low)
        return LowPrecision(low, error * (1 + 1e-9), norm * (1 + 1e-9))
    error = torch.empty(rows, dtype=torch.float64, device=vectors.device)
    norm = torch.empty_like(error)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        exact = on_grid(vectors[part] if order is None else vectors[order[part]])
        low[part, :dimension] = exact
        error[part] = torch.linalg.vector_norm(exact - low[part, :dimension].double(), dim=1)
        norm[part] = torch.linalg.vector_norm(low[part, :dimension].double(), dim=1)
    return LowPrecision(low, error * (1 + 1e-9), norm * (1 + 1e-9))


def score_error(questions: LowPrecision, candidates: LowPrecision) -> torch.Tensor:
    """Return by how much a screened score may differ from the exact one, shape (questions,).

    With q = q' + d and c = c' + e, where q' and c' are the rounded vectors, qc - q'c' is at most
    |d| |c| + |q'| |e| (Cauchy and Schwarz); summing in single precision adds its own error.
    """
    if not len(candidates.error):
        return torch.zeros_like(questions.error)
    error, norm = candidates.error.max(), candidates.norm.max()
    summing = questions.vectors.shape[1] * _SUMMING * questions.norm * norm
    return questions.error * (norm + error) + questions.norm * error + summing + _LIMIT_ROUNDING


@dataclass(frozen=True, slots=True)
class Limits:
    """What a screen lets through: scores of each row and, where negatives are random, keys.

    A pair may be a hard negative where ``hard_low`` <= score <= ``hard_high``, a semi-hard one
    where ``semi_low`` <= score <= ``semi_high``; all shape (rows,), float32, ``hard_high`` None
    where there is no such limit. With ``row_key`` (rows,) and ``column_key`` (columns,), int32,
    its key ``row_key ^ column_key`` must also be at most ``hard_key`` or ``semi_key`` (rows,),
    int32; otherwise the four are None.
    """

    hard_low: torch.Tensor
    hard_high: torch.Tensor | None
    semi_low: torch.Tensor
    semi_high: torch.Tensor
    row_key: torch.Tensor | None = None
    hard_key: torch.Tensor | None = None
    semi_key: torch.Tensor | None = None

    def __getitem__(self, rows: slice | torch.Tensor) -> Limits:
        """Return the limits of some rows."""
        return Limits(
            self.hard_low[rows],
            None if self.hard_high is None else self.hard_high[rows],
            self.semi_low[rows],
            self.semi_high[rows],
            None if self.row_key is None else self.row_key[rows],
            None if self.hard_key is None else self.hard_key[rows],
            None if self.semi_key is None else self.semi_key[rows],
        )

    def __len__(self) -> int:
        return self.hard_low.shape[0]

    def widened(self) -> Limits:
        """Return limits for scores that were rounded to float16, in whatever direction."""
        return replace(
            self,
            hard_low=_moved(self.hard_low, -1),
            hard_high=None if self.hard_high is None else _moved(self.hard_high, 1),
            semi_low=_moved(self.semi_low, -1),
            semi_high=_moved(self.semi_high, 1),
        )

    def let_through(self, scores: torch.Tensor, column_key: torch.Tensor | None) -> torch.Tensor:
        """Return which of ``scores`` (rows, columns) pass, bool."""
        hard = scores >= self.hard_low.unsqueeze(1)
        if self.hard_high is not None:
            hard &= scores <= self.hard_high.unsqueeze(1)
        semi = scores >= self.semi_low.unsqueeze(1)
        semi &= scores <= self.semi_high.unsqueeze(1)
        if self.row_key is not None:
            assert column_key is not None
            assert self.hard_key is not None
            assert self.semi_key is not None
            key = self.row_key.unsqueeze(1) ^ column_key
            hard &= key <= self.hard_key.unsqueeze(1)
            semi &= key <= self.semi_key.unsqueeze(1)
        return hard.logical_or_(semi)


class Screen(Protocol):
    """A way to look at all scores of some rows and columns."""

    def __call__(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the rows and columns of the pairs that may pass, in batches of bounded size.

        ``questions`` (rows, dimension) and ``candidates`` (columns, dimension) are vectors of low
        precision. Both results have shape (pairs,), int64, and rows ascend within a batch. More
        pairs than necessary may be yielded, never fewer, and none twice.
        """


@dataclass(frozen=True, slots=True)
class PlainScreen:
    """Blocks of at most ``budget`` scores, each multiplied, compared and forgotten."""

    budget: int = 2**22

    def __call__(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the rows and columns of the pairs that may pass, block by block."""
        width = max(1, min(len(candidates), self.budget, _WIDTH))
        height = max(1, self.budget // width)
        for top in range(0, len(questions), height):
            rows = slice(top, top + height)
            for left in range(0, len(candidates), width):
                columns = slice(left, left + width)
                scores = multiply(questions[rows], candidates[columns])
                keys = None if column_key is None else column_key[columns]
                row, column = torch.nonzero(limits[rows].let_through(scores, keys), as_tuple=True)
                yield row + top, column + left


def _moved(limits: torch.Tensor, sign: int) -> torch.Tensor:
    # float16 holds 11 bits, down to multiples of 2**-24.
    return limits + sign * (limits.abs() * 2.0**-10 + 2.0**-24)


def multiply(questions: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return all dot products in single precision, shape (questions, candidates), float32."""
    if questions.dtype == torch.float32:
        return questions @ candidates.T
    return torch.mm(questions, candidates.T, out_dtype=torch.float32)
