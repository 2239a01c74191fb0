"""BM25 over the passages of an index, and its ranking joined with that of the vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clrelkt.search.segments import Segment
from clrelkt.text.words import IcuWords

__all__ = ["WORDS", "KeywordHits", "KeywordSearch", "fused"]

WORDS = IcuWords()
"""What turns passages and questions into words."""

_K1, _B = 1.5, 0.75
_RRF = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""


@dataclass(frozen=True, slots=True)
class KeywordHits:
    """Passages that share words with a question, best first; all shape (hits,).

    ``coverage`` says how much of the question a passage has: the sum of its words' weights (inverse
    document frequency) over that of all the question's, from 0 to 1.
    """

    rows: np.ndarray
    scores: np.ndarray
    coverage: np.ndarray


class KeywordSearch:
    """BM25 as bm25s and Lucene have it, over all segments of a generation.

    Deleted documents count in the words' frequencies until the index is compacted.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    @cached_property
    def _mean_length(self) -> float:
        rows = sum(len(segment) for segment in self._segments)
        return sum(int(segment.lengths.sum(dtype=np.int64)) for segment in self._segments) / rows

    def search(self, question: str, k: int, allowed: np.ndarray | None = None) -> KeywordHits:
        """Return the ``k`` best passages that share a word with the question.

        Equal scores stand in the order of the rows. ``allowed`` says which rows may be found,
        shape (rows,), bool.
        """
        words = Counter(WORDS.words([question])[0])
        postings = {word: [s.postings(word) for s in self._segments] for word in words}
        total = sum(len(segment) for segment in self._segments)
        weights = {}
        for word, found in postings.items():
            frequency = sum(len(rows) for rows, _ in found)
            weights[word] = float(np.log(1 + (total - frequency + 0.5) / (frequency + 0.5)))
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        first = 0
        for number, segment in enumerate(self._segments):
            scores = np.zeros(len(segment), np.float32)
            covered = np.zeros(len(segment), np.float32)
            for word, times in words.items():
                rows, counts = postings[word][number]
                length = segment.lengths[rows] / self._mean_length
                share = counts / (counts + _K1 * (1 - _B + _B * length))
                scores[rows] += (times * weights[word] * share).astype(np.float32)
                covered[rows] += weights[word]
            if allowed is not None:
                scores[~allowed[first : first + len(segment)]] = 0
            best = _best(scores, k)
            parts.append((best + first, scores[best], covered[best]))
            first += len(segment)
        if not parts:
            return KeywordHits(np.empty(0, np.int64), np.empty(0), np.empty(0))
        rows, scores, covered = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[:k]
        all_of_it = sum(weights.values()) or 1.0
        return KeywordHits(rows[order], scores[order], covered[order] / all_of_it)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return where the ``k`` highest scores above zero are, best first, then by place."""
    places = np.flatnonzero(scores > 0)
    if len(places) > k:
        least = np.partition(scores[places], -k)[-k]
        places = places[scores[places] >= least]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def fused(rows: np.ndarray, hits: KeywordHits) -> list[tuple[int, float]]:
    """Join the rows that the vectors found, best first, with those that the words found.

    Reciprocal rank fusion, in which a passage's place in BM25's ranking weighs as much as the
    passage covers of the question: of a question in another language BM25 finds a name or a
    number, and its ranking says little. A passage that is first in both rankings and has all of
    the question's words scores 1.
    """
    scale = (_RRF + 1) / 2
    scores: dict[int, float] = {}
    for rank, row in enumerate(rows.tolist(), 1):
        scores[row] = scale / (_RRF + rank)
    found = zip(hits.rows.tolist(), hits.coverage.tolist(), strict=True)
    for rank, (row, coverage) in enumerate(found, 1):
        scores[row] = scores.get(row, 0.0) + scale * coverage / (_RRF + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
