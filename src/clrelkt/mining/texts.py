"""Each distinct text once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from clrelkt.encoders.protocol import TextKind

__all__ = ["Encode", "distinct"]

Encode = Callable[[Sequence[str], TextKind], np.ndarray]
"""Texts to unit vectors, shape (texts, dimension), float32; ``Encoder.encode`` is one."""


def distinct(texts: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the distinct texts, and which of them each text is, shape (texts,), int64."""
    number: dict[str, int] = {}
    rows = [number.setdefault(text, len(number)) for text in texts]
    return tuple(number), np.array(rows, dtype=np.int64)
