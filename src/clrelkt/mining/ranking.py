"""The best texts of many queries from a BM25 index, on all cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from clrelkt.cores import cores

__all__ = ["Postings", "Ranking", "rank"]

# Compiling takes about a second, which is what numpy needs for about this many postings.
_POSTINGS_WORTH_COMPILING = 50_000_000
_K1, _B = 1.5, 0.75
_QUERIES_AT_ONCE = 64
# The compiled search inserts into a short list; beyond this length sorting is quicker.
_DEEPEST_LIST = 1_024


@dataclass(frozen=True, slots=True)
class Postings:
    """For each word the texts that hold it, and what it adds to their scores.

    ``starts`` (words + 1,) int64 says where a word's part of ``texts`` (postings,) int32 and
    ``scores`` (postings,) float32 begins; ``count`` is the number of texts.
    """

    starts: np.ndarray
    texts: np.ndarray
    scores: np.ndarray
    count: int

    @classmethod
    def of(cls, tokens: Sequence[Sequence[str]], number: Mapping[str, int]) -> Postings:
        """Index texts, given their words and a number for each, from 0.

        Scores are those of Lucene's BM25, k1 1.5 and b .75, as in Kamphuis et al. (Which BM25 do
        you mean?, ECIR 2020), computed in double and kept in single precision.
        """
        count, lengths = len(tokens), np.array([len(text) for text in tokens], np.int64)
        total_length = int(lengths.sum())
        words = np.fromiter((number[w] for text in tokens for w in text), np.int64, total_length)
        # Sorted by word and then by text; equal ones are a word's repetitions in a text.
        entries, frequency = np.unique(
            words * count + np.repeat(np.arange(count), lengths), return_counts=True
        )
        word, text = np.divmod(entries, max(1, count))
        holding = np.bincount(word, minlength=len(number))
        weight = _weights(holding, count)[word].astype(np.float64)
        # The mean of nothing is no number; then there is no entry to use it.
        mean = lengths.mean() if total_length else 1.0
        norm = _K1 * ((1 - _B) + _B * lengths / mean)
        scores = weight * (frequency / (norm[text] + frequency))
        return cls(
            np.concatenate(([0], holding.cumsum())),
            text.astype(np.int32),
            scores.astype(np.float32),
            count,
        )

    def work(self, queries: Sequence[np.ndarray]) -> int:
        """Return how many postings the queries read."""
        lengths = np.diff(self.starts)
        return sum(int(lengths[query].sum()) for query in queries)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Texts by query, best first, both shape (queries, depth): -1 and 0 where there are fewer.

    ``places`` int64 counts texts from 0, ``scores`` is float32. Equal scores are in the texts'
    order; texts that share no word with the query are not in it.
    """

    places: np.ndarray
    scores: np.ndarray


def rank(postings: Postings, queries: Sequence[np.ndarray], depth: int) -> Ranking:
    """Return the ``depth`` best texts of each query.

    ``queries`` are word numbers, each shape (words,), int32. With numba installed, work that is
    worth it is compiled and runs on all cores; the result is the same.
    """
    found = Ranking(
        np.full((len(queries), depth), -1, np.int64), np.zeros((len(queries), depth), np.float32)
    )
    compiled = (
        depth <= _DEEPEST_LIST
        and find_spec("numba") is not None
        and postings.work(queries) > _POSTINGS_WORTH_COMPILING
    )
    if not compiled:
        for number, query in enumerate(queries):
            _rank_one(postings, query, found.places[number], found.scores[number])
        return found
    search = _compiled()

    def part(start: int) -> None:
        some = queries[start : start + _QUERIES_AT_ONCE]
        lengths = np.array([0, *map(len, some)], np.int64)
        search(
            postings.starts,
            postings.texts,
            postings.scores,
            postings.count,
            np.concatenate([np.empty(0, np.int32), *some]).astype(np.int32),
            lengths.cumsum(),
            found.places[start : start + len(some)],
            found.scores[start : start + len(some)],
        )

    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(part, range(0, len(queries), _QUERIES_AT_ONCE)))
    return found


def total(postings: Postings, query: np.ndarray) -> np.ndarray:
    """Return the score of every text, shape (texts,), float32."""
    scores = np.zeros(postings.count, np.float32)
    for word in query:
        part = slice(postings.starts[word], postings.starts[word + 1])
        scores[postings.texts[part]] += postings.scores[part]
    return scores


def _rank_one(
    postings: Postings, query: np.ndarray, places: np.ndarray, scores: np.ndarray
) -> None:
    every = total(postings, query)
    depth = len(places)
    hits = np.flatnonzero(every > 0)
    if len(hits) > depth:
        least = np.partition(every[hits], -depth)[-depth]
        hits = hits[every[hits] >= least]
    best = hits[np.argsort(-every[hits], kind="stable")][:depth]
    places[: len(best)] = best
    scores[: len(best)] = every[best]


def _weights(holding: np.ndarray, count: int) -> np.ndarray:
    """Return how telling a word is that ``holding`` of ``count`` texts hold, float32."""
    different, which = np.unique(holding, return_inverse=True)
    # Not numpy's logarithm, whose last bit depends on the machine.
    weights = [math.log(1 + (count - df + 0.5) / (df + 0.5)) for df in different.tolist()]
    return np.array(weights, np.float32)[which]


@cache
def _compiled() -> Callable[..., Any]:
    import numba

    compiled: Callable[..., Any] = numba.njit(nogil=True)(_search)
    return compiled


def _search(
    starts: np.ndarray,
    texts: np.ndarray,
    gains: np.ndarray,
    count: int,
    words: np.ndarray,
    bounds: np.ndarray,
    places: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Rank the queries whose words stand in ``words`` between ``bounds``; numba compiles this."""
    totals = np.zeros(count, np.float32)
    depth = places.shape[1]
    for query in range(places.shape[0]):
        for at in range(bounds[query], bounds[query + 1]):
            for posting in range(starts[words[at]], starts[words[at] + 1]):
                totals[texts[posting]] += gains[posting]
        held = 0
        for place in range(count):
            score = totals[place]
            if score <= 0:
                continue
            totals[place] = 0
            if held == depth and score <= scores[query, depth - 1]:
                continue
            # Texts come in order, so that an equal score goes behind those that are there.
            spot = held if held < depth else depth - 1
            while spot > 0 and scores[query, spot - 1] < score:
                scores[query, spot] = scores[query, spot - 1]
                places[query, spot] = places[query, spot - 1]
                spot -= 1
            scores[query, spot] = score
            places[query, spot] = place
            if held < depth:
                held += 1
