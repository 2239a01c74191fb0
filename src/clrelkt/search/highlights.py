"""The sentence of a hit that is nearest to the question."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from clrelkt.encoders.protocol import Encoder
from clrelkt.search.hits import Highlight
from clrelkt.search.segments import StoredRow
from clrelkt.search.snapshot import PlacedRow
from clrelkt.search.vectors import similarities

__all__ = ["Highlighter"]

_REMEMBERED = 20_000
"""Passages whose sentence vectors are kept, of indexes that hold none."""


class Highlighter:
    """Finds the nearest sentence, from stored vectors or from ones that it has encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._remembered: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self, question: np.ndarray, hits: Sequence[PlacedRow]
    ) -> list[tuple[Highlight, ...]]:
        """Return the sentence of each passage that is nearest to a question.

        Args:
            question: its vector, shape (dimension,), float32.
            hits: the passages.
        """
        with_vectors = [hit for hit in hits if _has_vectors(hit.stored)]
        stored = iter(_stored_cosines(question, with_vectors))
        return [
            (
                _nearest(
                    hit.stored,
                    next(stored) if _has_vectors(hit.stored) else self._cosines(question, hit),
                ),
            )
            for hit in hits
        ]

    def _cosines(self, question: np.ndarray, hit: PlacedRow) -> list[float]:
        if len(hit.stored.sentences) == 1:
            vectors = hit.segment.block.halves[hit.row].astype(np.float32)[None]
        else:
            vectors = self._encoded(hit.stored)
        cosines: list[float] = (vectors @ question).tolist()
        return cosines

    def _encoded(self, stored: StoredRow) -> np.ndarray:
        with self._lock:
            known = self._remembered.get(stored.text)
            if known is not None:
                self._remembered.move_to_end(stored.text)
                return known
        texts = [stored.text[span.start : span.stop].strip() for span in stored.sentences]
        vectors = self._encoder.encode(texts, "passage")
        with self._lock:
            self._remembered[stored.text] = vectors
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return vectors


def _has_vectors(stored: StoredRow) -> bool:
    return len(stored.sentences) > 1 and stored.sentence_vectors is not None


def _stored_cosines(question: np.ndarray, hits: Sequence[PlacedRow]) -> list[list[float]]:
    """Return the cosines of a question and the sentences of each passage, in one product."""
    if not hits:
        return []
    places = [hit.stored.sentence_vectors for hit in hits]
    vectors = [h.segment.sentence_vectors[place] for h, place in zip(hits, places, strict=True)]
    scales = [h.segment.sentence_scales[place] for h, place in zip(hits, places, strict=True)]
    cosines = similarities(question[None], np.concatenate(vectors), np.concatenate(scales))[0]
    every = iter(cosines.tolist())
    return [list(islice(every, len(own))) for own in vectors]


def _nearest(stored: StoredRow, cosines: Sequence[float]) -> Highlight:
    score = max(cosines)
    start, stop = stored.sentences[cosines.index(score)]
    text = stored.text[start:stop]
    start += len(text) - len(text.lstrip())
    stop -= len(text) - len(text.rstrip())
    return Highlight(start, stop, score)
