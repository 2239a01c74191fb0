"""BM25 over the passages of an index, and its ranking joined with that of the vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
_KEPT = 2**14
"""Words that stand in more passages than that are weighed anew for each question of a batch."""

_Postings = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Where words stand: see ``Segment.postings``."""


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

    def search(
        self, questions: Sequence[str], k: int, allowed: np.ndarray | None = None
    ) -> list[KeywordHits]:
        """Return for each question the ``k`` best passages that share a word with it.

        Equal scores stand in the order of the rows. ``allowed`` says which rows may be found,
        shape (rows,), bool.
        """
        counted = [Counter(words) for words in WORDS.words(questions)]
        words = list({word: None for own in counted for word in own})
        found = [segment.postings(words) for segment in self._segments]
        weights = self._weights(words, found)
        shares = [
            _Shares(segment, own, weights, self._mean_length)
            for segment, own in zip(self._segments, found, strict=True)
        ]
        return [self._best_of(own, shares, weights, k, allowed) for own in counted]

    def _weights(self, words: Sequence[str], found: Sequence[_Postings]) -> dict[str, float]:
        """Return the words' inverse document frequencies."""
        total = sum(len(segment) for segment in self._segments)
        weights = {}
        for word in words:
            frequency = sum(len(own[word][0]) for own in found if word in own)
            weights[word] = float(np.log(1 + (total - frequency + 0.5) / (frequency + 0.5)))
        return weights

    def _best_of(
        self,
        words: Mapping[str, int],
        shares: Sequence[_Shares],
        weights: Mapping[str, float],
        k: int,
        allowed: np.ndarray | None,
    ) -> KeywordHits:
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        first = 0
        for own in shares:
            scores, covered = own.summed(words)
            if allowed is not None:
                scores[~allowed[first : first + len(scores)]] = 0
            best = _best(scores, k)
            parts.append((best + first, scores[best], covered[best]))
            first += len(scores)
        if not parts:
            return KeywordHits(np.empty(0, np.int64), np.empty(0), np.empty(0))
        rows, scores, covered = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[:k]
        all_of_it = sum(weights[word] for word in words) or 1.0
        return KeywordHits(rows[order], scores[order], covered[order] / all_of_it)


class _Shares:
    """What the words of some questions give the passages of a segment."""

    def __init__(
        self,
        segment: Segment,
        postings: _Postings,
        weights: Mapping[str, float],
        mean_length: float,
    ) -> None:
        self._segment = segment
        self._postings = postings
        self._weights = weights
        self._mean_length = mean_length
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def summed(self, words: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return every passage's score, and the weight of those words that it has; float32."""
        scores = np.zeros(len(self._segment), np.float32)
        covered = np.zeros(len(self._segment), np.float32)
        for word, times in words.items():
            if word in self._postings:
                rows = self._postings[word][0]
                scores[rows] += self._share(word, times)
                covered[rows] += self._weights[word]
        return scores, covered

    def _share(self, word: str, times: int) -> np.ndarray:
        kept = self._kept.get((word, times))
        if kept is not None:
            return kept
        rows, counts = self._postings[word]
        length = self._segment.lengths[rows] / self._mean_length
        part = counts / (counts + _K1 * (1 - _B + _B * length))
        share: np.ndarray = (times * self._weights[word] * part).astype(np.float32)
        if len(rows) <= _KEPT:
            self._kept[word, times] = share
        return share


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
    ranks = _RRF + np.arange(1, 1 + max(len(rows), len(hits.rows)))
    both = np.concatenate((rows, hits.rows))
    by_vector = scale / ranks[: len(rows)]
    by_words = scale * hits.coverage.astype(np.float64) / ranks[: len(hits.rows)]
    distinct, places = np.unique(both, return_inverse=True)
    scores = np.bincount(places, np.concatenate((by_vector, by_words)), len(distinct))
    order = np.argsort(-scores, kind="stable")
    return list(zip(distinct[order].tolist(), scores[order].tolist(), strict=True))
