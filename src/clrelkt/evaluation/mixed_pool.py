"""Questions of all languages against passages of all languages at once.

The measurement of LAReQA (Roy et al., LAReQA: Language-Agnostic Answer Retrieval from a
Multilingual Pool, EMNLP 2020, sections 3 and 4), over passages: every version of the gold passage
is a right answer, and an encoder with a liking for one language puts that language's wrong
passages before the right ones of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Question
from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import DataError, UnknownNameError
from clrelkt.evaluation.metrics import gold_ranks
from clrelkt.evaluation.results import groups_of
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode, distinct
from clrelkt.mining.triplets import gold_id

__all__ = ["MixedPoolEvaluator", "MixedPoolLanguage", "MixedPoolResult"]

_BUDGET = 2**21
_MISSING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPoolLanguage:
    """What the questions of one language find.

    ``x_to_y`` is the mean average precision over all versions of the gold passage, in the pool of
    all languages; ``x_to_x`` that over the question's own version, among the passages of the
    question's own language. ``own_language_at_1`` and ``own_language_at_10`` are the shares of the
    first passage and of the first ten that are in the question's language (a tie counts for it).
    ``rank_distance`` is the mean over questions of the mean absolute difference of rank between two
    versions of the gold passage, over all pairs of versions; n versions side by side have
    (n + 1) / 3, which is the least. ``left_out`` counts the questions whose
    gold passage is missing in their own language.

    ``average_precision`` (questions,), float64, is what ``x_to_y`` is the mean of, and
    ``reciprocal_rank`` that of ``x_to_x``.
    """

    questions: int
    left_out: int
    x_to_y: float
    x_to_x: float
    own_language_at_1: float
    own_language_at_10: float
    rank_distance: float
    average_precision: np.ndarray = field(compare=False, repr=False)
    reciprocal_rank: np.ndarray = field(compare=False, repr=False)
    parallel_ids: tuple[str, ...] = field(compare=False, repr=False)

    def to_json(self) -> dict[str, float | int]:
        """Return the numbers by name."""
        return {
            "questions": self.questions,
            "left_out": self.left_out,
            **{name: getattr(self, attribute) for name, attribute in _NUMBERS.items()},
        }


_NUMBERS: Mapping[str, str] = MappingProxyType(
    {
        "x_to_y/map": "x_to_y",
        "x_to_x/map": "x_to_x",
        "own_language@1": "own_language_at_1",
        "own_language@10": "own_language_at_10",
        "rank_distance": "rank_distance",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPoolResult:
    """An encoder's results in the pool of all languages, by the questions' language.

    ``candidates`` is the size of that pool and ``pool_languages`` the languages of its passages.
    ``groups`` names the languages behind each group's mean, as in ``Results``.
    """

    encoder: str
    weights: str
    corpus: str
    split: str
    candidates: int
    pool_languages: tuple[str, ...]
    languages: Mapping[str, MixedPoolLanguage]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def expected_own_language(self) -> float:
        """The share of hits in the question's language if no language were preferred."""
        return 1 / len(self.pool_languages)

    @property
    def mean(self) -> Mapping[str, float]:
        """The plain means over the question languages, under the names of ``to_json``."""
        return self._means(tuple(self.languages))

    @property
    def means(self) -> Mapping[str, Mapping[str, float]]:
        """The same for each group of languages."""
        return MappingProxyType({name: self._means(codes) for name, codes in self.groups.items()})

    @property
    def values(self) -> Mapping[str, float]:
        """Flat names to numbers of which a larger one is better.

        ``other_language@k`` is 1 - ``own_language@k`` and ``neg_rank_distance`` the distance with
        its sign turned. Means over all languages have the plain name; ``/de`` or ``/supported``
        after it stands for a language or a group.
        """
        flat = _rising(self.mean)
        for name, row in [*self.means.items(), *self._rows()]:
            flat |= {f"{key}/{name}": value for key, value in _rising(row).items()}
        return MappingProxyType(flat)

    def question_values(self, measure: str = "x_to_y") -> dict[str, dict[str, float]]:
        """Return each language's values by parallel id, whose means ``measure`` is made of.

        Raises:
            UnknownNameError: ``measure`` is neither ``x_to_y`` nor ``x_to_x``.
        """
        attributes = {"x_to_y": "average_precision", "x_to_x": "reciprocal_rank"}
        if measure not in attributes:
            raise UnknownNameError(f"no measure {measure!r}; there are {' '.join(attributes)}")
        return {
            code: dict(zip(row.parallel_ids, getattr(row, attributes[measure]), strict=True))
            for code, row in self.languages.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: labels, the languages' numbers, and their means."""
        return {
            "encoder": self.encoder,
            "weights": self.weights,
            "corpus": self.corpus,
            "split": self.split,
            "candidates": self.candidates,
            "pool_languages": list(self.pool_languages),
            "expected_own_language": self.expected_own_language,
            "languages": {code: row.to_json() for code, row in self.languages.items()},
            "mean": dict(self.mean),
            "means": {group: dict(row) for group, row in self.means.items()},
        }

    def _rows(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        for code in self.languages:
            yield code, self._means((code,))

    def _means(self, codes: Sequence[str]) -> Mapping[str, float]:
        return MappingProxyType(
            {
                name: float(np.mean([getattr(self.languages[code], attribute) for code in codes]))
                for name, attribute in _NUMBERS.items()
            }
        )


def _rising(row: Mapping[str, float]) -> dict[str, float]:
    return {
        "x_to_y/map": row["x_to_y/map"],
        "x_to_x/map": row["x_to_x/map"],
        "other_language@1": 1 - row["own_language@1"],
        "other_language@10": 1 - row["own_language@10"],
        "neg_rank_distance": -row["rank_distance"],
    }


@dataclass(frozen=True, slots=True)
class _Pool:
    """The passages of all languages, one language after the other.

    ``column`` (passages, languages) says where each version of a passage stands, -1 where there
    is none; ``own`` where a language's passages stand.
    """

    texts: tuple[str, ...]
    column: np.ndarray
    own: Mapping[str, slice]


@dataclass(frozen=True, slots=True)
class _Task:
    """The questions of one language; ``gold`` (questions, languages) are columns of the pool."""

    language: str
    parallel_ids: tuple[str, ...]
    texts: tuple[str, ...]
    gold: np.ndarray
    own_gold: np.ndarray
    left_out: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What a block of questions finds, each (questions,)."""

    average_precision: np.ndarray
    reciprocal_rank: np.ndarray
    own_at_1: np.ndarray
    own_at_10: np.ndarray
    rank_distance: np.ndarray


class MixedPoolEvaluator:
    """The evaluation of one encoder after the other in the pool of all languages.

    ``question_texts`` and ``candidate_texts`` are the distinct texts that a call encodes.
    """

    def __init__(
        self, corpus: Corpus, *, split: str = "all", languages: Sequence[str] | None = None
    ) -> None:
        """Look up gold and pool; ``split`` is how the results call these questions.

        Args:
            corpus: with translations of its passages.
            split: a name.
            languages: of the questions and of the pool (default: all that have passages).

        Raises:
            DataError: no translated passages, no questions, or a gold that is not in the corpus.
            UnknownNameError: the corpus has no questions in one of ``languages``.
        """
        self.corpus = corpus
        self.split = split
        codes = _pool_languages(corpus, languages)
        self._pool = _pool(corpus, codes)
        self._tasks = tuple(_task(corpus, code, codes, self._pool) for code in codes)
        questions = [text for task in self._tasks for text in task.texts]
        self.question_texts, question_rows = distinct(questions)
        self.candidate_texts, candidate_rows = distinct(self._pool.texts)
        ends = np.cumsum([len(task.texts) for task in self._tasks])[:-1]
        self._question_rows = np.split(question_rows, ends)
        self._candidate_rows = candidate_rows

    def __call__(self, encoder: Encoder, encode: Encode | None = None) -> MixedPoolResult:
        """Evaluate ``encoder``, each distinct text encoded once.

        ``encode`` takes the place of ``encoder.encode``, for texts that are tokenised already.
        """
        encode = encode or encoder.encode
        questions = on_grid(torch.from_numpy(encode(self.question_texts, "question")))
        distinct_candidates = on_grid(torch.from_numpy(encode(self.candidate_texts, "passage")))
        candidates = distinct_candidates[torch.from_numpy(self._candidate_rows)]

        def score(rows: np.ndarray) -> np.ndarray:
            scores: np.ndarray = (questions[torch.from_numpy(rows)] @ candidates.T).numpy()
            return scores

        languages = {
            task.language: _evaluate(task, self._pool, rows, score)
            for task, rows in zip(self._tasks, self._question_rows, strict=True)
        }
        return MixedPoolResult(
            encoder=encoder.name,
            weights=encoder.weights,
            corpus=self.corpus.name,
            split=self.split,
            candidates=len(self._pool.texts),
            pool_languages=tuple(self._pool.own),
            languages=MappingProxyType(languages),
            groups=groups_of(languages, encoder.languages, self.corpus.document_language),
        )


def _pool_languages(corpus: Corpus, languages: Sequence[str] | None) -> tuple[str, ...]:
    if not corpus.passage_translations:
        raise DataError(
            f"corpus {corpus.name!r} has its passages in {corpus.document_language!r} alone: a "
            "pool of all languages needs a parallel set such as xquad"
        )
    if not corpus.questions:
        raise DataError(f"corpus {corpus.name!r} has no questions here: nothing to evaluate")
    present = {corpus.document_language, *corpus.passage_translations}
    chosen = corpus if languages is None else corpus.in_languages(languages)
    for code in languages or ():
        if code not in present:
            raise DataError(f"corpus {corpus.name!r} has no passages in {code!r}")
    codes = tuple(code for code in chosen.languages if code in present)
    if len(codes) < 2:
        raise DataError(
            f"corpus {corpus.name!r}: a mixed pool needs at least two languages with questions and "
            f"passages, got {' '.join(codes) or 'none'}"
        )
    return codes


def _pool(corpus: Corpus, codes: Sequence[str]) -> _Pool:
    ids = list(corpus.passage_by_id)
    column = np.full((len(ids), len(codes)), _MISSING, dtype=np.int64)
    texts: list[str] = []
    own: dict[str, slice] = {}
    for place, code in enumerate(codes):
        start = len(texts)
        versions = _versions(corpus, code)
        for number, passage_id in enumerate(ids):
            if passage_id in versions:
                column[number, place] = len(texts)
                texts.append(versions[passage_id])
        own[code] = slice(start, len(texts))
    return _Pool(tuple(texts), column, MappingProxyType(own))


def _versions(corpus: Corpus, language: str) -> Mapping[str, str]:
    if language == corpus.document_language:
        return {passage.id: passage.text for passage in corpus.passage_by_id.values()}
    return corpus.passage_translations[language]


def _task(corpus: Corpus, language: str, codes: Sequence[str], pool: _Pool) -> _Task:
    number = {passage_id: place for place, passage_id in enumerate(corpus.passage_by_id)}
    questions = corpus.questions_in(language)
    gold = pool.column[[_gold_number(question, number) for question in questions]]
    own_gold = gold[:, list(codes).index(language)]
    kept = np.flatnonzero(own_gold != _MISSING)
    if not len(kept):
        raise DataError(
            f"corpus {corpus.name!r}: no question in {language!r} has its gold passage in "
            f"{language!r}"
        )
    asked = [questions[place] for place in kept.tolist()]
    return _Task(
        language,
        tuple(question.parallel_id for question in asked),
        tuple(question.text for question in asked),
        gold[kept],
        own_gold[kept],
        len(questions) - len(kept),
    )


def _gold_number(question: Question, number: Mapping[str, int]) -> int:
    gold = gold_id(question, "passage")
    if gold not in number:
        raise DataError(
            f"question {question.id!r}: its gold passage {gold!r} is not in the corpus, which has "
            f"{len(number)} passages"
        )
    return number[gold]


def _evaluate(
    task: _Task, pool: _Pool, rows: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> MixedPoolLanguage:
    height = max(1, _BUDGET // len(pool.texts))
    own = pool.own[task.language]
    found = [
        _find(score(rows[start : start + height]), task, slice(start, start + height), own)
        for start in range(0, len(rows), height)
    ]
    average_precision = np.concatenate([block.average_precision for block in found])
    reciprocal_rank = np.concatenate([block.reciprocal_rank for block in found])

    def mean(of: Callable[[_Found], np.ndarray]) -> float:
        return float(np.mean(np.concatenate([of(block) for block in found])))

    return MixedPoolLanguage(
        questions=len(rows),
        left_out=task.left_out,
        x_to_y=float(np.mean(average_precision)),
        x_to_x=float(np.mean(reciprocal_rank)),
        own_language_at_1=mean(lambda block: block.own_at_1),
        own_language_at_10=mean(lambda block: block.own_at_10),
        rank_distance=mean(lambda block: block.rank_distance),
        average_precision=average_precision,
        reciprocal_rank=reciprocal_rank,
        parallel_ids=task.parallel_ids,
    )


def _find(scores: np.ndarray, task: _Task, rows: slice, own: slice) -> _Found:
    """Rank what ``scores`` (questions, candidates) say; ``own`` is the questions' language."""
    gold, own_gold = task.gold[rows], task.own_gold[rows]
    ranks, present = _version_ranks(scores, gold)
    # Where the i-th right answer stands at rank r, precision is i / r.
    ordered = np.sort(ranks, axis=1)
    places = np.arange(1, ranks.shape[1] + 1)
    versions = present.sum(axis=1)
    precision = np.where(places <= versions[:, None], places / ordered, 0.0)
    own_ranks = gold_ranks(scores[:, own], own_gold - own.start)
    return _Found(
        precision.sum(axis=1) / versions,
        1 / own_ranks,
        _own_share(scores, own, 1),
        _own_share(scores, own, 10),
        _mean_distance(ranks, present),
    )


def _version_ranks(scores: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each version of the gold, and which versions there are.

    Both have shape (questions, languages). Among equal scores wrong passages come first, then the
    versions in the order of their languages; a missing version has a rank beyond all others.
    """
    present = gold != _MISSING
    columns = np.where(present, gold, 0)
    above = np.stack([gold_ranks(scores, column) for column in columns.T], axis=1)
    versions = np.take_along_axis(scores, columns, axis=1)
    right_above = np.stack(
        [
            np.count_nonzero(present & ~(versions < versions[:, [place]]), axis=1)
            for place in range(versions.shape[1])
        ],
        axis=1,
    )
    wrong_above = np.where(present, above - right_above, scores.shape[1])
    # With as many wrong passages above, the higher score stands first.
    order = np.lexsort((-versions, wrong_above), axis=1)
    ranks = np.empty_like(wrong_above)
    counted = np.take_along_axis(wrong_above, order, axis=1) + np.arange(1, gold.shape[1] + 1)
    np.put_along_axis(ranks, order, counted, axis=1)
    return ranks, present


def _mean_distance(ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of rank over pairs of versions, shape (questions,)."""
    pairs = np.triu(np.ones((ranks.shape[1], ranks.shape[1]), dtype=bool), 1)
    both = present[:, :, None] & present[:, None, :] & pairs
    distances = np.abs(ranks[:, :, None] - ranks[:, None, :])
    mean: np.ndarray = (distances * both).sum(axis=(1, 2)) / np.maximum(both.sum(axis=(1, 2)), 1)
    return mean


def _own_share(scores: np.ndarray, own: slice, first: int) -> np.ndarray:
    """Return the share of the ``first`` candidates that are ``own``, which go first in a tie."""
    size = min(first, scores.shape[1])
    last = torch.from_numpy(scores).topk(size, dim=1).values[:, [-1]].numpy()
    above = np.count_nonzero(scores > last, axis=1)
    own_above = np.count_nonzero(scores[:, own] > last, axis=1)
    own_tied = np.count_nonzero(scores[:, own] == last, axis=1)
    share: np.ndarray = (own_above + np.minimum(own_tied, size - above)) / size
    return share
