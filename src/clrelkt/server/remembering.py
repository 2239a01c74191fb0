"""Vectors of questions that have been asked lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["RememberedVectors"]


class RememberedVectors:
    """Encodes questions, and keeps the vectors of the latest; for use by one thread."""

    def __init__(self, encode: Callable[[Sequence[str]], np.ndarray], size: int) -> None:
        """Keep up to ``size`` vectors; 0 keeps none."""
        self._encode = encode
        self._size = size
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()
        self.found = 0
        self.encoded = 0

    def __call__(self, questions: Sequence[str]) -> np.ndarray:
        """Return the questions' vectors, shape (questions, dimension), float32."""
        missing = [q for q in dict.fromkeys(questions) if q not in self._known]
        fresh: dict[str, np.ndarray] = {}
        if missing:
            fresh = dict(zip(missing, self._encode(missing), strict=True))
        self.encoded += len(missing)
        self.found += len(questions) - len(missing)
        vectors = np.stack([fresh[q] if q in fresh else self._known[q] for q in questions])
        self._keep(questions, fresh)
        return vectors

    def _keep(self, questions: Sequence[str], fresh: dict[str, np.ndarray]) -> None:
        for question in questions:
            if question in self._known:
                self._known.move_to_end(question)
            elif self._size:
                # A copy: a row alone would keep its batch's whole table alive.
                self._known[question] = fresh[question].copy()
        while len(self._known) > self._size:
            self._known.popitem(last=False)
