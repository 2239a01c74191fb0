"""BM25 search, and negatives mined with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clrelkt.corpora.model import Corpus, Question
from clrelkt.errors import SettingsError
from clrelkt.mining.ranking import Postings, Ranking, rank, total
from clrelkt.mining.texts import distinct
from clrelkt.mining.tokens import words_of
from clrelkt.mining.triplets import CandidateSet, Granularity, Triplets, pools_of
from clrelkt.text.words import WordTokenizer

__all__ = ["BM25Hit", "BM25Index", "BM25Miner", "BM25Mining", "mine_bm25"]


@dataclass(frozen=True, slots=True)
class BM25Hit:
    """A text that shares words with the query, and its BM25 score (above zero)."""

    id: str
    score: float


class BM25Index:
    """Texts that can be searched by their words.

    With numba installed (``pip install 'clrelkt[mining]'``) large searches run compiled and on
    all cores.
    """

    def __init__(self, ids: Sequence[str], texts: Sequence[str], words: WordTokenizer) -> None:
        self.ids = tuple(ids)
        self._words = words
        tokens = words_of(texts, words)
        # Sorted, so that an index is the same in every process whatever the string hashes are.
        vocabulary = sorted({token for text in tokens for token in text})
        self._number = {token: number for number, token in enumerate(vocabulary)}
        self._postings = Postings.of(tokens, self._number)

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Return the score of every text for every query, shape (queries, texts), float32.

        A query without a known word scores zero everywhere.
        """
        found = np.zeros((len(queries), len(self)), dtype=np.float32)
        for row, query in zip(found, self._numbers(queries), strict=True):
            row[:] = total(self._postings, query)
        return found

    def rank(self, queries: Sequence[str], k: int) -> Ranking:
        """Return the places and scores of the ``k`` best texts of each query.

        Texts that share no word with the query are never among them.

        Raises:
            SettingsError: ``k`` is below 1.
        """
        if k < 1:
            raise SettingsError(f"k is {k}; at least 1 hit must be asked for")
        return rank(self._postings, self._numbers(queries), k)

    def search(self, queries: Sequence[str], k: int) -> list[tuple[BM25Hit, ...]]:
        """Return at most ``k`` hits a query, best first, equal scores in the texts' order.

        Texts that share no word with the query are never hits.

        Raises:
            SettingsError: ``k`` is below 1.
        """
        found = self.rank(queries, k)
        return [
            tuple(
                BM25Hit(self.ids[place], score)
                for place, score in zip(places, scores, strict=True)
                if place >= 0
            )
            for places, scores in zip(found.places.tolist(), found.scores.tolist(), strict=True)
        ]

    def _numbers(self, queries: Sequence[str]) -> list[np.ndarray]:
        """Return the numbers of each query's known words."""
        return [
            np.array([self._number[word] for word in words if word in self._number], np.int32)
            for words in words_of(queries, self._words)
        ]


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
    gold = np.array([candidates.gold_position(q, settings.granularity) for q in asked], np.int64)
    miner = BM25Miner(candidates.texts, distinct(candidates.document_ids)[1], settings, words)
    negatives = miner.mine([english[question.id] for question in asked], gold)
    for question, place, found in zip(asked, gold.tolist(), negatives.tolist(), strict=True):
        ids = [candidates.ids[number] for number in found if number >= 0]
        yield question.id, (candidates.ids[place], ids)


class BM25Miner:
    """BM25 negatives for any number of questions among the same texts."""

    def __init__(
        self,
        texts: Sequence[str],
        document: np.ndarray,
        settings: BM25Mining,
        words: WordTokenizer,
    ) -> None:
        """Index ``texts``; ``document`` (texts,) numbers the document of each."""
        self.settings = settings
        self._document = document
        _, self._text = distinct(texts)
        self._documents_size, self._texts_size = (
            np.bincount(numbers, minlength=1) for numbers in (self._document, self._text)
        )
        self._index = BM25Index(_numbered(len(texts)), texts, words)

    def mine(self, queries: Sequence[str], golds: np.ndarray) -> np.ndarray:
        """Choose negatives for some questions.

        ``golds`` (questions,) or (questions, most) holds the numbers of the texts that answer
        each; nothing of their documents and no text equal to theirs is a negative.

        Returns:
            Numbers of texts, shape (questions, per_question), int64, best first; -1 where too few
            share a word with the question.
        """
        if not len(queries):
            return np.empty((0, self.settings.per_question), np.int64)
        golds = golds.reshape(len(queries), -1)
        document, text = self._document[golds], self._text[golds]
        barred = self._documents_size[document] + self._texts_size[text]
        skipped = self.settings.first_rank - 1
        depth = skipped + self.settings.per_question + int(barred.sum(axis=1).max())
        # Questions with the same words, such as translations of one, are searched once.
        different, which = distinct(queries)
        ranking = self._index.rank(different, min(depth, max(1, len(self._index))))
        places = ranking.places[which][:, skipped:]
        allowed = places >= 0
        for column in range(golds.shape[1]):
            allowed &= self._document[places] != document[:, column, None]
            allowed &= self._text[places] != text[:, column, None]
        return _first(places, allowed, self.settings.per_question)


def _first(places: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` allowed places of each row, -1 where there are fewer."""
    chosen = np.full((len(places), count), -1, np.int64)
    number = allowed.cumsum(axis=1)
    row, column = np.nonzero(allowed & (number <= count))
    chosen[row, number[row, column] - 1] = places[row, column]
    return chosen


def _numbered(count: int) -> tuple[str, ...]:
    """Return ids for texts that have none: their numbers."""
    return tuple(map(str, range(count)))
