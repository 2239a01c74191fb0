"""From the nearest vectors and the words in common to the hits of a question, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np

from clrelkt.search.keywords import KeywordSearch, fused
from clrelkt.search.snapshot import Filter, Snapshot
from clrelkt.search.stores import VectorStore

__all__ = ["By", "Ranker", "Ranking"]

By = Literal["passage", "document"]

_Pair = tuple[int, float]
"""A row and its score."""

_DEPTH = 100
"""How deep rankings are joined, at least."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How the hits of a question are chosen; see ``Index.search_batch``."""

    k: int
    chosen: Filter
    by: By
    hybrid: bool
    balanced: bool


class Ranker:
    """Ranks the passages of one generation of an index."""

    def __init__(self, snapshot: Snapshot, store: VectorStore) -> None:
        self.snapshot = snapshot
        self.store = store
        self._words = KeywordSearch(snapshot.segments)

    def __call__(
        self, questions: Sequence[str], vectors: np.ndarray, ranking: Ranking
    ) -> list[list[_Pair]]:
        """Return the rows of the hits of each question, and their scores, best first."""
        if not ranking.balanced:
            return self._ranked(questions, vectors, ranking, ranking.chosen)
        languages, where = ranking.chosen
        codes = [code for code in self.snapshot.languages if code in (languages or (code,))]
        parts = [self._ranked(questions, vectors, ranking, ((code,), where)) for code in codes]
        return [_in_turns(own, ranking.k) for own in zip(*parts, strict=True)] or [
            [] for _ in questions
        ]

    def _ranked(
        self, questions: Sequence[str], vectors: np.ndarray, ranking: Ranking, chosen: Filter
    ) -> list[list[_Pair]]:
        allowed = self.snapshot.allowed(chosen)
        rows = self.snapshot.rows
        if rows == 0 or (allowed is not None and not allowed.any()):
            return [[] for _ in questions]
        wanted = max(ranking.k, _DEPTH) if ranking.hybrid else ranking.k
        while True:
            passages = self._passages(questions, vectors, min(wanted, rows), allowed, ranking)
            if ranking.by == "passage":
                return [pairs[: ranking.k] for pairs in passages]
            best = self._documents(passages)
            enough = all(
                len(documents) >= ranking.k or len(pairs) < wanted
                for documents, pairs in zip(best, passages, strict=True)
            )
            if enough or wanted >= rows:
                return [documents[: ranking.k] for documents in best]
            wanted *= 4

    def _passages(
        self,
        questions: Sequence[str],
        vectors: np.ndarray,
        wanted: int,
        allowed: np.ndarray | None,
        ranking: Ranking,
    ) -> list[list[_Pair]]:
        found = self.store.search(vectors, wanted, allowed)
        if not ranking.hybrid:
            return [
                list(zip(rows.tolist(), scores.tolist(), strict=True)) for rows, scores in found
            ]
        by_words = self._words.search(questions, wanted, allowed)
        return [fused(rows, hits) for (rows, _), hits in zip(found, by_words, strict=True)]

    def _documents(self, passages: Sequence[list[_Pair]]) -> list[list[_Pair]]:
        """Return each document's best passage, for each question."""
        rows = np.array([row for pairs in passages for row, _ in pairs], np.int64)
        owners = iter(self.snapshot.owners(rows).tolist())
        found = []
        for pairs in passages:
            best: dict[int, _Pair] = {}
            # The owners come second: where they came first, zip would take one too many.
            for pair, owner in zip(pairs, owners, strict=False):
                best.setdefault(owner, pair)
            found.append(list(best.values()))
        return found


def _in_turns(rankings: Sequence[list[_Pair]], k: int) -> list[_Pair]:
    """Return ``k`` hits: every ranking's best, then every ranking's second, and so on.

    In a turn the higher scores go first.
    """
    chosen: list[_Pair] = []
    for turn in zip_longest(*rankings):
        there = [pair for pair in turn if pair is not None]
        chosen += sorted(there, key=lambda pair: (-pair[1], pair[0]))
    return chosen[:k]
