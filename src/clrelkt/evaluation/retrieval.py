"""How well an encoder finds the documents that answer the questions of a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Document, Question
from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import DataError, SettingsError
from clrelkt.evaluation.metrics import gold_ranks
from clrelkt.evaluation.results import LanguageResult, Results, groups_of
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode, distinct
from clrelkt.mining.triplets import CandidateSet, Granularity

__all__ = [
    "EvaluationSettings",
    "LanguageTask",
    "RetrievalEvaluator",
    "evaluate",
    "label_results",
    "language_tasks",
]

_BUDGET = 2**23


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is ranked, and how a document is scored.

    ``pool`` is what the gold is looked for among. A ``whole`` document is scored as one text, its
    passages joined by a space; by ``best-passage`` it has the highest score of its passages. In a
    pool of passages ``document_score`` has no effect.
    """

    pool: Granularity = "document"
    document_score: Literal["whole", "best-passage"] = "whole"

    def __post_init__(self) -> None:
        if self.pool not in ("document", "passage"):
            raise SettingsError(f"pool {self.pool!r}: document or passage expected")
        if self.document_score not in ("whole", "best-passage"):
            raise SettingsError(
                f"document score {self.document_score!r}: whole or best-passage expected"
            )

    @property
    def scored(self) -> Granularity:
        """The texts that get a score of their own."""
        by_passage = self.pool == "passage" or self.document_score == "best-passage"
        return "passage" if by_passage else "document"


@dataclass(frozen=True)
class LanguageTask:
    """The questions of one language and what they are searched in.

    ``scored`` are the texts that get a score. ``starts`` (ranked,) says where each ranked thing
    begins among them: every document at its first passage, or each text for itself. ``gold``
    (questions,) holds numbers of ranked things.
    """

    language: str
    questions: tuple[Question, ...]
    scored: CandidateSet
    starts: np.ndarray
    gold: np.ndarray

    def only(self, numbers: np.ndarray) -> LanguageTask:
        """Return the task with some of its questions, shape (chosen,)."""
        chosen = tuple(self.questions[number] for number in numbers)
        return replace(self, questions=chosen, gold=self.gold[numbers])

    def ranks(self, scores: np.ndarray, rows: slice) -> np.ndarray:
        """Return the gold's ranks for some of the questions, from scores (rows, scored)."""
        if len(self.starts) < len(self.scored):
            scores = np.maximum.reduceat(scores, self.starts, axis=1)
        return gold_ranks(scores, self.gold[rows])

    def result(self, ranks: Iterable[np.ndarray]) -> LanguageResult:
        """Put the ranks of all questions together."""
        parallel_ids = [question.parallel_id for question in self.questions]
        return LanguageResult.from_ranks(np.concatenate(list(ranks)), parallel_ids)

    def blocks(self) -> Iterator[slice]:
        """Cut the questions so that their scores stay within 64 MiB."""
        height = max(1, _BUDGET // len(self.scored))
        for start in range(0, len(self.questions), height):
            yield slice(start, min(start + height, len(self.questions)))


def language_tasks(
    corpus: Corpus, settings: EvaluationSettings, languages: Sequence[str] | None = None
) -> tuple[LanguageTask, ...]:
    """Return what there is to be found in each language, or in ``languages`` alone.

    Raises:
        DataError: no questions, a question without gold, or whose gold is not in its pool.
        UnknownNameError: the corpus has no questions in one of ``languages``.
    """
    chosen = corpus if languages is None else corpus.in_languages(languages)
    if not chosen.questions:
        raise DataError(f"corpus {corpus.name!r} has no questions here: nothing to evaluate")
    sets: dict[tuple[str, ...], CandidateSet] = {}
    return tuple(_task(chosen, code, settings, sets) for code in chosen.languages)


def _task(
    corpus: Corpus,
    language: str,
    settings: EvaluationSettings,
    sets: dict[tuple[str, ...], CandidateSet],
) -> LanguageTask:
    documents = corpus.pool(language)
    questions = tuple(corpus.questions_in(language))
    # Languages with the same pool share its texts.
    key = tuple(document.id for document in documents)
    if key not in sets:
        sets[key] = CandidateSet.of(documents, settings.scored)
    scored = sets[key]
    if settings.pool == settings.scored:
        ranked, starts = scored, np.arange(len(scored))
    else:
        ranked, starts = CandidateSet.of(documents, settings.pool), _first_passages(documents)
    gold = [ranked.gold_position(question, settings.pool) for question in questions]
    return LanguageTask(language, questions, scored, starts, np.array(gold, dtype=np.int64))


def _first_passages(documents: Sequence[Document]) -> np.ndarray:
    for document in documents:
        if not document.passages:
            raise DataError(f"document {document.id!r} has no passage to be scored by")
    counts = [len(document.passages) for document in documents]
    return np.cumsum([0, *counts[:-1]])


class RetrievalEvaluator:
    """The evaluation of one encoder after the other on the same questions.

    ``question_texts`` and ``candidate_texts`` are the distinct texts that a call encodes, over
    all languages, so that they can be tokenised beforehand.
    """

    def __init__(
        self,
        corpus: Corpus,
        settings: EvaluationSettings | None = None,
        *,
        split: str = "all",
        languages: Sequence[str] | None = None,
    ) -> None:
        """Look up gold and pools; ``split`` is how the results call these questions.

        Raises:
            DataError: no questions, a question without gold, or whose gold is not in its pool.
            UnknownNameError: the corpus has no questions in one of ``languages``.
        """
        self.corpus = corpus
        self.settings = settings or EvaluationSettings()
        self.split = split
        self.tasks = language_tasks(corpus, self.settings, languages)
        questions = [question.text for task in self.tasks for question in task.questions]
        candidates = [text for task in self.tasks for text in task.scored.texts]
        self.question_texts, question_rows = distinct(questions)
        self.candidate_texts, candidate_rows = distinct(candidates)
        self._rows = list(
            zip(
                _divided(question_rows, [len(task.questions) for task in self.tasks]),
                _divided(candidate_rows, [len(task.scored) for task in self.tasks]),
                strict=True,
            )
        )

    def __call__(self, encoder: Encoder, encode: Encode | None = None) -> Results:
        """Evaluate ``encoder``, each distinct text encoded once.

        ``encode`` takes the place of ``encoder.encode``, for texts that are tokenised already.
        """
        encode = encode or encoder.encode
        questions = on_grid(torch.from_numpy(encode(self.question_texts, "question")))
        candidates = on_grid(torch.from_numpy(encode(self.candidate_texts, "passage")))
        languages = {
            task.language: _evaluate_language(task, questions, candidates, *rows)
            for task, rows in zip(self.tasks, self._rows, strict=True)
        }
        return label_results(
            languages,
            self.corpus,
            self.settings,
            split=self.split,
            encoder=encoder.name,
            weights=encoder.weights,
            known=encoder.languages,
        )


def _divided(rows: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    return np.split(rows, np.cumsum(lengths)[:-1])


def _evaluate_language(
    task: LanguageTask,
    questions: torch.Tensor,
    candidates: torch.Tensor,
    question_rows: np.ndarray,
    candidate_rows: np.ndarray,
) -> LanguageResult:
    own = candidates[torch.from_numpy(candidate_rows)]
    rows = torch.from_numpy(question_rows)
    return task.result(
        task.ranks((questions[rows[block]] @ own.T).numpy(), block) for block in task.blocks()
    )


def label_results(
    languages: Mapping[str, LanguageResult],
    corpus: Corpus,
    settings: EvaluationSettings,
    *,
    split: str,
    encoder: str,
    weights: str,
    known: frozenset[str],
) -> Results:
    """Say what the languages' results are results of; ``known`` are the encoder's languages."""
    return Results.of(
        MappingProxyType(dict(languages)),
        groups_of(languages, known, corpus.document_language),
        encoder=encoder,
        weights=weights,
        corpus=corpus.name,
        pool=settings.pool,
        document_score=settings.document_score,
        split=split,
    )


def evaluate(
    encoder: Encoder,
    corpus: Corpus,
    settings: EvaluationSettings | None = None,
    *,
    split: str = "all",
    languages: Sequence[str] | None = None,
) -> Results:
    """Return how often ``encoder`` finds the gold of the questions of ``corpus``.

    A language's questions are searched in the language's own pool. Equal scores rank the gold
    last; a candidate with the gold's text is not the gold. ``split`` is how the results call
    these questions.

    Raises:
        DataError: no questions, a question without gold, or whose gold is not in its pool.
        UnknownNameError: the corpus has no questions in one of ``languages``.
    """
    return RetrievalEvaluator(corpus, settings, split=split, languages=languages)(encoder)
