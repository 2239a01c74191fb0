"""The seam between a search and what finds the nearest vectors."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from clrelkt.search.vectors import Neighbours

__all__ = ["VectorStore"]


@runtime_checkable
class VectorStore(Protocol):
    """The vectors of one generation of an index; threads may share it."""

    def search(
        self, questions: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> Neighbours:
        """Return at most ``k`` nearest rows to each question.

        Args:
            questions: unit vectors, shape (questions, dimension), float32.
            k: how many are wanted, at least 1.
            allowed: which rows may be found, shape (rows,), bool; None is every one.
        """

    def close(self) -> None:
        """Give back what it holds."""
