"""Every vector is compared with the question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrelkt.search.vectors import Neighbours, VectorBlock, exact_search

__all__ = ["ExactStore"]


class ExactStore:
    """Vectors in mapped files, read from the first to the last for every batch of questions."""

    def __init__(self, blocks: Sequence[VectorBlock]) -> None:
        self._blocks = list(blocks)

    def search(
        self, questions: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> Neighbours:
        """Return the ``k`` nearest rows to each question."""
        return exact_search(questions, self._blocks, k, allowed)

    def close(self) -> None:
        """Do nothing: the segments own the files."""
