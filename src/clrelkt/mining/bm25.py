"""BM25 search, and negatives mined with it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from clrelkt.corpora.model import Corpus, Question
from clrelkt.errors import SettingsError
from clrelkt.mining.triplets import CandidateSet, Granularity, Triplets, pools_of
from clrelkt.text.words import WordTokenizer

if TYPE_CHECKING:
    import bm25s

__all__ = ["BM25Hit", "BM25Index", "BM25Mining", "mine_bm25"]

# Compiling bm25s's numba scorer takes half a second, which is what numpy needs for about this
# many postings.
_POSTINGS_WORTH_COMPILING = 50_000_000


@dataclass(frozen=True, slots=True)
class BM25Hit:
    """A text that shares words with the query, and its BM25 score (above zero)."""

    id: str
    score: float


class BM25Index:
    """Texts that can be searched by their words."""

    def __init__(self, ids: Sequence[str], texts: Sequence[str], words: WordTokenizer) -> None:
        self.ids = tuple(ids)
        self._words = words
        tokens = words.words(texts)
        # Sorted, so that an index is the same in every process whatever the string hashes are.
        vocabulary = sorted({token for text in tokens for token in text})
        self._number = {token: number for number, token in enumerate(vocabulary)}
        self._index = self._build(tokens) if vocabulary else None

    def _build(self, tokens: list[list[str]]) -> bm25s.BM25:
        index = _import_bm25s().BM25()
        numbers = [[self._number[token] for token in text] for text in tokens]
        index.index((numbers, self._number), create_empty_token=False, show_progress=False)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Return the score of every text for every query, shape (queries, texts), float32.

        A query without a known word scores zero everywhere.
        """
        found = np.zeros((len(queries), len(self)), dtype=np.float32)
        for row, scores in zip(found, self._score(queries), strict=True):
            row[:] = scores
        return found

    def search(self, queries: Sequence[str], k: int) -> list[tuple[BM25Hit, ...]]:
        """Return at most ``k`` hits a query, best first, equal scores in the texts' order.

        Texts that share no word with the query are never hits.
        """
        if k < 1:
            raise SettingsError(f"k is {k}; at least 1 hit must be asked for")
        return [
            tuple(BM25Hit(self.ids[place], float(scores[place])) for place in _best(scores, k))
            for scores in self._score(queries)
        ]

    def _score(self, queries: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the scores of one query after the other, shape (texts,)."""
        numbers = [
            np.array([self._number[word] for word in words if word in self._number], np.int32)
            for words in self._words.words(queries)
        ]
        if self._index is None:
            yield from (np.zeros(len(self), np.float32) for _ in queries)
            return
        self._compile_for(numbers)
        for query in numbers:
            yield self._index.get_scores_from_ids(query)

    def _compile_for(self, queries: Sequence[np.ndarray]) -> None:
        assert self._index is not None
        postings = np.diff(self._index.scores["indptr"])
        work = sum(int(postings[query].sum()) for query in queries)
        if work > _POSTINGS_WORTH_COMPILING and find_spec("numba") is not None:
            self._index.activate_numba_scorer()


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the ``k`` highest scores above zero, best first, then by place."""
    places = np.flatnonzero(scores > 0)
    if len(places) > k:
        least = np.partition(scores[places], -k)[-k]
        places = places[scores[places] >= least]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def _import_bm25s() -> ModuleType:
    """Import bm25s without JAX.

    Where JAX is installed bm25s starts it to try its top-k, and JAX then takes three quarters of a
    GPU's memory for itself. Nothing here needs that top-k.
    """
    if "bm25s" in sys.modules or "jax" in sys.modules:
        return importlib.import_module("bm25s")
    sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("bm25s")
    finally:
        del sys.modules["jax"]


@dataclass(frozen=True, slots=True)
class BM25Mining:
    """How negatives are taken from BM25's ranking.

    ``per_question`` negatives are taken from rank ``first_rank`` on (1 is the best hit); what
    stands above that rank is passed over even if it is not gold.
    """

    per_question: int = 3
    first_rank: int = 2
    granularity: Granularity = "passage"

    def __post_init__(self) -> None:
        if self.per_question < 1 or self.first_rank < 1:
            raise SettingsError(
                f"BM25 mining with per_question = {self.per_question} and first_rank = "
                f"{self.first_rank}: both must be at least 1"
            )
        if self.granularity not in ("document", "passage"):
            raise SettingsError(
                f"BM25 mining with granularity {self.granularity!r}: document or passage expected"
            )


def mine_bm25(
    questions: Sequence[Question], corpus: Corpus, settings: BM25Mining, words: WordTokenizer
) -> Triplets:
    """Return the texts that BM25 ranks high for a question without being its gold.

    The query is the question in the language of the documents; ``corpus`` must hold those
    translations. A question without one is left out and counted in ``left_out``. Candidates come
    from the pool of the question's language. No part of the gold document is ever a negative,
    nor is a candidate with the gold's text.

    Raises:
        DataError: a question without gold, or whose gold is not in its pool.
    """
    english = {
        question.id: translated.text
        for question in questions
        if (translated := _in_document_language(question, corpus)) is not None
    }
    negatives: dict[str, tuple[str, list[str]]] = {}
    for pool, languages in pools_of(corpus, (question.language for question in questions)):
        asked = [q for q in questions if q.language in languages and q.id in english]
        candidates = CandidateSet.of(pool, settings.granularity)
        negatives.update(_mine_pool(asked, english, candidates, settings, words))
    rows = (
        (question.id, negatives[question.id][0], negative)
        for question in questions
        if question.id in negatives
        for negative in negatives[question.id][1]
    )
    left_out = {
        f"no translation into {corpus.document_language!r}": len(questions) - len(english),
        "no negative": sum(not found for _, found in negatives.values()),
    }
    return Triplets.from_rows(rows, settings.granularity, left_out)


def _in_document_language(question: Question, corpus: Corpus) -> Question | None:
    if question.language == corpus.document_language:
        return question
    return corpus.translation(question, corpus.document_language)


def _mine_pool(
    asked: Sequence[Question],
    english: dict[str, str],
    candidates: CandidateSet,
    settings: BM25Mining,
    words: WordTokenizer,
) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Yield (question id, (gold id, negative ids)) for the questions of one pool."""
    gold = {q.id: candidates.gold_position(q, settings.granularity) for q in asked}
    barred = {place: _barred(place, candidates) for place in set(gold.values())}
    depth = settings.first_rank - 1 + settings.per_question
    depth += max((len(ids) for ids in barred.values()), default=0)
    # The translations of a question share their query, so that it is searched once.
    queries = list(dict.fromkeys(english[question.id] for question in asked))
    index = BM25Index(candidates.ids, candidates.texts, words)
    hits = dict(zip(queries, index.search(queries, depth), strict=True))
    for question in asked:
        place = gold[question.id]
        ranked = hits[english[question.id]][settings.first_rank - 1 :]
        allowed = [hit.id for hit in ranked if hit.id not in barred[place]]
        yield question.id, (candidates.ids[place], allowed[: settings.per_question])


def _barred(gold: int, candidates: CandidateSet) -> frozenset[str]:
    """Return the ids that are no negatives where ``gold`` is the answer."""
    document, text = candidates.document_ids[gold], candidates.texts[gold]
    rows = zip(candidates.ids, candidates.document_ids, candidates.texts, strict=True)
    return frozenset(id_ for id_, owner, same in rows if owner == document or same == text)
