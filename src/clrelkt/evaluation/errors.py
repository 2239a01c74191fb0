"""Wrong answers of an encoder, with a guess at why they are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Passage, Question
from clrelkt.encoders.protocol import TextKind
from clrelkt.errors import DataError, SettingsError
from clrelkt.evaluation.results import Results
from clrelkt.evaluation.retrieval import LanguageTask, RetrievalEvaluator
from clrelkt.files import write_text
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode

__all__ = ["CAUSES", "EXCERPT", "Cause", "WrongAnswer", "find_errors", "write_errors"]

Cause = Literal[
    "another-passage-of-the-gold-document",
    "answer-in-hit",
    "missed-in-document-language",
    "no-question-to-compare-with",
    "only-this-language",
    "several-languages",
]
"""A guess at why an answer is wrong: the first of these that holds.

``another-passage-of-the-gold-document``: of a pool of passages, the right document was found.
``answer-in-hit``: an answer of at least three characters stands in the hit too, as whole words:
a near duplicate, or a question that fits both.
``missed-in-document-language``: the question is, or its translation into the documents' language
is missed too: question or answer is hard.
``no-question-to-compare-with``: that translation is missing or was not evaluated.
``only-this-language``: every other language of the question finds its gold, a gap of transfer.
``several-languages``: the documents' language finds it, this one and others do not.
"""

CAUSES: tuple[Cause, ...] = get_args(Cause)
"""The causes in the order in which they are tried."""

EXCERPT = 300
"""Texts in a wrong answer are cut after this many characters."""

_SHORTEST_ANSWER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """A question whose gold is not the first, and what is first instead.

    ``hit_id`` and ``gold_id`` are ids of what is ranked, documents or passages. The hit's passage
    is the one that fits the question best; texts are cut after 300 characters. The two scores are
    those that the ranks come from.
    """

    question_id: str
    language: str
    question: str
    answers: tuple[str, ...]
    hit_id: str
    hit_passage_id: str
    hit_text: str
    hit_score: float
    gold_id: str
    gold_passage_id: str | None
    gold_text: str
    gold_score: float
    gold_rank: int
    cause: Cause

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, or is none of these.
        """
        return cls(**{**record, "answers": tuple(record["answers"])})


def find_errors(
    evaluator: RetrievalEvaluator,
    results: Results,
    encode: Encode,
    *,
    limit: int | None = None,
    seed: int = 0,
    worst: bool = False,
    languages: Collection[str] | None = None,
) -> tuple[WrongAnswer, ...]:
    """Return wrong answers behind ``results``, sorted by language as these are.

    Args:
        evaluator: what has given ``results``.
        results: with ranks.
        encode: the encoder's own function; it is asked again for the candidates of ``evaluator``.
        limit: draw at most this many, as evenly over the languages as there are errors.
        seed: of that draw.
        worst: draw nothing: take those whose gold ranks last, of several the first.
        languages: look at questions in these alone.

    Raises:
        DataError: results without ranks.
        SettingsError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise SettingsError(f"a limit of {limit} wrong answers: at least 1 is needed")
    ranks = _ranks(results)
    wrong = {
        task.language: [n for n, q in enumerate(task.questions) if ranks[_key(q)] > 1]
        for task in evaluator.tasks
        if languages is None or task.language in languages
    }
    chosen = wrong
    if limit is not None:
        chosen = _worst(wrong, results, limit) if worst else _sample(wrong, limit, seed)
    candidates = on_grid(torch.from_numpy(encode(evaluator.candidate_texts, "passage")))
    row = {text: number for number, text in enumerate(evaluator.candidate_texts)}
    evaluated = tuple(results.languages)
    errors: list[WrongAnswer] = []
    for task in evaluator.tasks:
        numbers = chosen.get(task.language)
        if not numbers:
            continue
        own = candidates[[row[text] for text in task.scored.texts]]
        searched = _Search(evaluator, task, own, partial(_vectors, encode))
        errors += [
            searched.wrong_answer(number, found, ranks, evaluated)
            for number, found in zip(numbers, searched.questions(numbers), strict=True)
        ]
    return tuple(errors)


def write_errors(path: Path, errors: Sequence[WrongAnswer]) -> None:
    """Write one JSON object a line, atomically.

    Raises:
        StorageError: it could not be written.
    """
    lines = (json.dumps(error.to_json(), ensure_ascii=False) for error in errors)
    write_text(path, "".join(f"{line}\n" for line in lines))


Ranks = Mapping[tuple[str, str], int]


def _key(question: Question) -> tuple[str, str]:
    return question.parallel_id, question.language


def _ranks(results: Results) -> Ranks:
    ranks: dict[tuple[str, str], int] = {}
    for code, row in results.languages.items():
        if row.ranks is None:
            raise DataError("results that were stored without ranks do not say what is wrong")
        pairs = zip(row.parallel_ids, row.ranks.tolist(), strict=True)
        ranks |= {(parallel_id, code): rank for parallel_id, rank in pairs}
    return ranks


def _sample(wrong: Mapping[str, list[int]], limit: int, seed: int) -> dict[str, list[int]]:
    """Draw from each language in turn until there are ``limit``."""
    rng = np.random.default_rng(seed)
    shuffled = {code: rng.permutation(numbers).tolist() for code, numbers in wrong.items()}
    turns = sorted(
        (turn, place, code)
        for place, (code, numbers) in enumerate(shuffled.items())
        for turn in range(len(numbers))
    )[:limit]
    return {
        code: sorted(shuffled[code][turn] for turn, _, own in turns if own == code)
        for code in wrong
    }


def _worst(wrong: Mapping[str, list[int]], results: Results, limit: int) -> dict[str, list[int]]:
    """Take the ``limit`` questions whose gold ranks last."""
    ranks = {code: results.languages[code].ranks for code in wrong}
    order = sorted(
        (-int(own[number]), place, number, code)
        for place, (code, own) in enumerate(ranks.items())
        if own is not None
        for number in wrong[code]
    )[:limit]
    return {code: sorted(n for _, _, n, own in order if own == code) for code in wrong}


def _vectors(encode: Encode, texts: Sequence[str], kind: TextKind) -> torch.Tensor:
    return on_grid(torch.from_numpy(encode(texts, kind)))


class _Search:
    """What the questions of one language are searched in, with its vectors."""

    def __init__(
        self,
        evaluator: RetrievalEvaluator,
        task: LanguageTask,
        vectors: torch.Tensor,
        encode: Callable[[Sequence[str], TextKind], torch.Tensor],
    ) -> None:
        self._task = task
        self._corpus = evaluator.corpus
        self._pool = evaluator.settings.pool
        self._vectors = vectors
        self._encode = encode
        ids = task.scored.ids if self._pool == "passage" else task.scored.document_ids
        self._ids = [ids[start] for start in task.starts]

    def questions(self, numbers: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield the vectors of some of the task's questions."""
        yield from self._encode([self._task.questions[n].text for n in numbers], "question")

    def wrong_answer(
        self, number: int, vector: torch.Tensor, ranks: Ranks, languages: Sequence[str]
    ) -> WrongAnswer:
        """Look up what stands before the gold of a question."""
        question = self._task.questions[number]
        gold = int(self._task.gold[number])
        scores = self._scores(vector)
        # Where the two tie the gold is no hit, so it is not to be found as one either.
        others = scores.copy()
        others[gold] = -np.inf
        hit = int(np.argmax(others))
        best = self._best_passage(self._ids[hit], vector)
        gold_passage = self._corpus.passage_by_id.get(question.passage_id or "")
        gold_text = gold_passage.text if gold_passage else self._text(self._ids[gold])
        return WrongAnswer(
            question_id=question.id,
            language=question.language,
            question=question.text,
            answers=tuple(answer.text for answer in question.answers),
            hit_id=self._ids[hit],
            hit_passage_id=best.id,
            hit_text=best.text[:EXCERPT],
            hit_score=float(scores[hit]),
            gold_id=self._ids[gold],
            gold_passage_id=question.passage_id,
            gold_text=gold_text[:EXCERPT],
            gold_score=float(scores[gold]),
            gold_rank=ranks[_key(question)],
            cause=self._cause(question, self._ids[hit], best, ranks, languages),
        )

    def _scores(self, vector: torch.Tensor) -> np.ndarray:
        scores: np.ndarray = (self._vectors @ vector).numpy()
        if len(self._task.starts) == len(scores):
            return scores
        by_document: np.ndarray = np.maximum.reduceat(scores, self._task.starts)
        return by_document

    def _text(self, id_: str) -> str:
        if self._pool == "passage":
            return self._corpus.passage_by_id[id_].text
        return self._corpus.document_by_id[id_].text

    def _best_passage(self, id_: str, vector: torch.Tensor) -> Passage:
        if self._pool == "passage":
            return self._corpus.passage_by_id[id_]
        document = self._corpus.document_by_id[id_]
        if not document.passages:
            return Passage("", id_, document.text)
        vectors = self._encode([passage.text for passage in document.passages], "passage")
        return document.passages[int(torch.argmax(vectors @ vector))]

    def _cause(
        self,
        question: Question,
        hit_id: str,
        best: Passage,
        ranks: Ranks,
        languages: Sequence[str],
    ) -> Cause:
        if self._pool == "passage" and best.document_id == question.document_id:
            return "another-passage-of-the-gold-document"
        if _holds_answer(self._text(hit_id), question):
            return "answer-in-hit"
        return _cause_by_languages(question, self._corpus, ranks, languages)


def _holds_answer(text: str, question: Question) -> bool:
    folded = text.casefold()
    answers = (answer.text.strip().casefold() for answer in question.answers)
    return any(
        re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", folded)
        for answer in answers
        if len(answer) >= _SHORTEST_ANSWER
    )


def _cause_by_languages(
    question: Question, corpus: Corpus, ranks: Ranks, languages: Sequence[str]
) -> Cause:
    in_documents = ranks.get((question.parallel_id, corpus.document_language))
    if in_documents is None:
        return "no-question-to-compare-with"
    if in_documents > 1:
        return "missed-in-document-language"
    others = [
        ranks[question.parallel_id, code]
        for code in languages
        if code != question.language and (question.parallel_id, code) in ranks
    ]
    return "only-this-language" if all(rank == 1 for rank in others) else "several-languages"
