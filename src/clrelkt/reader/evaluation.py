"""How well a reader answers, language by language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from clrelkt.reader.contexts import ReadingTask
from clrelkt.reader.metrics import Normalisation, exact_match, f1_score
from clrelkt.reader.model import Reader, Reading

__all__ = ["Context", "Prediction", "ReaderResults", "ReaderScores", "evaluate_reader"]

Context = Literal["gold", "retrieved"]
"""What a reader is given: the gold passage, or the passages that an encoder finds."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one question ("" where the reader found none), and what it is worth."""

    question_id: str
    language: str
    question: str
    answer: str
    golds: tuple[str, ...]
    passage_id: str | None
    exact_match: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"golds": list(self.golds)}


@dataclass(frozen=True, slots=True)
class ReaderScores:
    """Means over ``questions`` questions, each from 0 to 1.

    ``answered`` is the share of questions that the reader gave an answer to.
    """

    questions: int
    exact_match: float
    f1: float
    answered: float

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> ReaderScores:
        """Return the means of at least one prediction."""
        return cls(
            questions=len(predictions),
            exact_match=float(np.mean([p.exact_match for p in predictions])),
            f1=float(np.mean([p.f1 for p in predictions])),
            answered=float(np.mean([bool(p.answer) for p in predictions])),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ReaderResults:
    """A reader's results; ``mean`` counts every language alike."""

    reader: str
    context: Context
    normalisation: Normalisation
    languages: Mapping[str, ReaderScores]
    predictions: tuple[Prediction, ...]

    @property
    def mean(self) -> ReaderScores:
        """The plain mean of the languages."""
        rows = tuple(self.languages.values())
        return ReaderScores(
            questions=sum(row.questions for row in rows),
            exact_match=float(np.mean([row.exact_match for row in rows])),
            f1=float(np.mean([row.f1 for row in rows])),
            answered=float(np.mean([row.answered for row in rows])),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the results without the single predictions."""
        return {
            "reader": self.reader,
            "context": self.context,
            "normalisation": self.normalisation,
            "languages": {code: row.to_json() for code, row in self.languages.items()},
            "mean": self.mean.to_json(),
        }


def evaluate_reader(
    reader: Reader,
    tasks: Sequence[ReadingTask],
    *,
    answer_language: str,
    context: Context,
    normalisation: Normalisation = "squad",
    progress: bool = False,
) -> ReaderResults:
    """Score the answers of ``reader`` against all gold answers of each question.

    Of several passages the answer is that of the highest score above its passage's "no answer".
    ``answer_language`` is the language of the passages, which MLQA's rules depend on; results are
    by the language of the questions.
    """
    pairs = [(task.question.text, passage.text) for task in tasks for passage in task.passages]
    readings = iter(reader.read_pairs(pairs, progress=progress))
    predictions = tuple(
        _predict(task, [next(readings) for _ in task.passages], answer_language, normalisation)
        for task in tasks
    )
    languages = {
        code: ReaderScores.of([p for p in predictions if p.language == code])
        for code in _languages(predictions)
    }
    return ReaderResults(
        reader.name, context, normalisation, MappingProxyType(languages), predictions
    )


def _languages(predictions: Sequence[Prediction]) -> Iterator[str]:
    yield from dict.fromkeys(prediction.language for prediction in predictions)


def _predict(
    task: ReadingTask,
    readings: Sequence[Reading],
    language: str,
    normalisation: Normalisation,
) -> Prediction:
    best = max(range(len(readings)), key=lambda place: _margin(readings[place]), default=None)
    found = None if best is None else readings[best].answer
    answer = "" if found is None else found.text
    golds = tuple(gold.text for gold in task.question.answers)
    return Prediction(
        question_id=task.question.id,
        language=task.question.language,
        question=task.question.text,
        answer=answer,
        golds=golds,
        passage_id=None if best is None or found is None else task.passages[best].id,
        exact_match=exact_match(answer, golds, language, normalisation),
        f1=f1_score(answer, golds, language, normalisation),
    )


def _margin(reading: Reading) -> float:
    answer = reading.answer
    return -np.inf if answer is None else answer.score - reading.null_score
