"""The sentence of a hit that is nearest to the question."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from clrelkt.encoders.protocol import Encoder
from clrelkt.search.hits import Highlight
from clrelkt.search.segments import Segment, StoredRow
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
        self, question: np.ndarray, segment: Segment, row: int, stored: StoredRow
    ) -> tuple[Highlight, ...]:
        """Return the sentence of a passage that is nearest to a question.

        Args:
            question: its vector, shape (dimension,), float32.
            segment: the passage's segment.
            row: the passage there.
            stored: the same, as it was read.
        """
        if len(stored.sentences) == 1:
            cosines = segment.block.halves[row].astype(np.float32) @ question[:, None]
        elif stored.sentence_vectors is not None:
            place = stored.sentence_vectors
            vectors, scales = segment.sentence_vectors[place], segment.sentence_scales[place]
            cosines = similarities(question[None], vectors, scales)[0]
        else:
            cosines = self._encoded(stored) @ question
        nearest = int(cosines.argmax())
        start, stop = stored.sentences[nearest]
        text = stored.text[start:stop]
        start += len(text) - len(text.lstrip())
        stop -= len(text) - len(text.rstrip())
        return (Highlight(start, stop, float(cosines[nearest])),)

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
