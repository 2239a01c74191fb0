"""The texts that a reader is given with a question: the gold passage, or what an encoder finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clrelkt.corpora.model import Answer, Corpus, Passage, Question
from clrelkt.errors import DataError, SettingsError
from clrelkt.mining.texts import Encode, distinct

__all__ = ["ReadingTask", "gold_tasks", "retrieved_tasks", "training_pairs"]


@dataclass(frozen=True, slots=True)
class ReadingTask:
    """A question and the passages that its answer is looked for in, the likeliest first."""

    question: Question
    passages: tuple[Passage, ...]


def gold_tasks(corpus: Corpus) -> list[ReadingTask]:
    """Return every question with its gold passage.

    Raises:
        DataError: no questions, or one without a gold passage or without an answer.
    """
    return [ReadingTask(question, (_gold(corpus, question),)) for question in _asked(corpus)]


def retrieved_tasks(corpus: Corpus, encode: Encode, *, passages: int = 1) -> list[ReadingTask]:
    """Return every question with the passages of its language's pool nearest to it.

    Equally near passages come in the corpus's order.

    Raises:
        DataError: no questions, or one without an answer.
        SettingsError: fewer than one passage is asked for.
    """
    if passages < 1:
        raise SettingsError(f"{passages} passages a question: at least 1 is needed")
    tasks: dict[str, ReadingTask] = {}
    asked = _asked(corpus)
    vectors: dict[tuple[str, ...], np.ndarray] = {}
    for language in corpus.languages:
        pool = [passage for document in corpus.pool(language) for passage in document.passages]
        key = tuple(passage.id for passage in pool)
        if key not in vectors:
            vectors[key] = _encoded([passage.text for passage in pool], encode, "passage")
        questions = corpus.questions_in(language)
        scores = _encoded([q.text for q in questions], encode, "question") @ vectors[key].T
        for question, row in zip(questions, scores, strict=True):
            best = np.argsort(-row, kind="stable")[:passages]
            tasks[question.id] = ReadingTask(question, tuple(pool[place] for place in best))
    return [tasks[question.id] for question in asked]


def training_pairs(
    corpus: Corpus, retrieved: Sequence[ReadingTask] = ()
) -> list[tuple[str, str, Answer | None]]:
    """Return question, context and the first answer in it, to learn from.

    Every question stands with its gold passage. Passages of ``retrieved`` that neither are the gold
    nor hold one of its answers stand there without an answer, so that the reader learns to find
    none.

    Raises:
        DataError: no questions, or one without a gold passage or an answer that is in it.
    """
    pairs: list[tuple[str, str, Answer | None]] = []
    for question in _asked(corpus):
        gold = _gold(corpus, question)
        pairs.append((question.text, gold.text, _placed(question, gold)))
    pairs += [
        (task.question.text, passage.text, None)
        for task in retrieved
        for passage in task.passages
        if passage.id != task.question.passage_id
        and not any(answer.text in passage.text for answer in task.question.answers)
    ]
    return pairs


def _encoded(texts: Sequence[str], encode: Encode, kind: str) -> np.ndarray:
    once, rows = distinct(texts)
    vectors: np.ndarray = encode(once, "question" if kind == "question" else "passage")[rows]
    return vectors


def _asked(corpus: Corpus) -> Sequence[Question]:
    if not corpus.questions:
        raise DataError(f"corpus {corpus.name!r} has no questions here: nothing to read")
    for question in corpus.questions:
        if not question.answers:
            raise DataError(f"question {question.id!r} of corpus {corpus.name!r} has no answer")
    return corpus.questions


def _gold(corpus: Corpus, question: Question) -> Passage:
    passage = corpus.passage_by_id.get(question.passage_id or "")
    if passage is None:
        raise DataError(
            f"question {question.id!r} of corpus {corpus.name!r}: its gold passage "
            f"{question.passage_id!r} is not in the corpus; a reader needs it"
        )
    return passage


def _placed(question: Question, passage: Passage) -> Answer:
    found = next(_places(question, passage), None)
    if found is None:
        raise DataError(
            f"question {question.id!r}: no answer of it stands in its passage {passage.id!r}"
        )
    return found


def _places(question: Question, passage: Passage) -> Iterator[Answer]:
    for answer in question.answers:
        start = passage.text.find(answer.text) if answer.start is None else answer.start
        if start >= 0 and passage.text.startswith(answer.text, start):
            yield replace(answer, start=start)
