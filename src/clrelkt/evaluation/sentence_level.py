"""Which sentence of the gold passage answers the question.

The paper's mining on the level of sentences: mUSE finds .712 of XQuAD's English questions in the
first sentence that it names, the paper's teacher .716.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Passage, Question
from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import DataError
from clrelkt.evaluation.metrics import gold_ranks
from clrelkt.evaluation.results import LanguageResult, MetricName, Metrics, Results, groups_of
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode, distinct
from clrelkt.mining.triplets import gold_id
from clrelkt.text.sentences import sentence_starts

__all__ = ["SENTENCE_METRICS", "SentenceBreaks", "SentenceLevelEvaluator", "SentenceLevelResult"]

SENTENCE_METRICS: tuple[MetricName, ...] = ("hit_rate@1", "hit_rate@5", "mrr@10")
"""What is told of sentences; few passages have more than ten."""

SentenceBreaks = Literal["marked", "icu"]
"""Whose sentences they are: the corpus's own marks, or the boundaries that ICU finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceLevelResult:
    """How often the sentence that holds the answer is the first, by the questions' language.

    ``results`` has the metrics, as those of any other retrieval; its pool is ``sentence``.
    ``sentences`` is the mean number of sentences that a question is matched with, and
    ``left_out`` counts each language's questions whose answer has no known place.
    """

    results: Results
    breaks: SentenceBreaks
    sentences: float
    left_out: Mapping[str, int]

    @property
    def values(self) -> Mapping[str, float]:
        """Flat names to numbers of which a larger one is better.

        ``hit_rate@1`` is the mean over all languages, ``hit_rate@1/de`` that of a language, and
        ``hit_rate@1/supported`` that of a group.
        """
        rows: dict[str, Metrics] = {"": self.results.mean}
        rows |= {f"/{group}": row for group, row in self.results.means.items()}
        rows |= {f"/{code}": row for code, row in self.results.languages.items()}
        return MappingProxyType(
            {
                f"{metric}{name}": row.value(metric)
                for name, row in rows.items()
                for metric in SENTENCE_METRICS
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: the results, and what the sentences are."""
        return {
            **self.results.to_json(),
            "breaks": self.breaks,
            "sentences": self.sentences,
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True, slots=True)
class _Sentences:
    """The sentences of one passage: where they begin, and which texts they are."""

    starts: tuple[int, ...]
    texts: tuple[str, ...]

    def holding(self, character: int) -> int:
        """Return the sentence that a character is in; a separator belongs to what it ends."""
        return max(0, int(np.searchsorted(self.starts, character, side="right")) - 1)


@dataclass(frozen=True, slots=True)
class _Task:
    """The questions of one language whose answer has a place.

    ``gold`` (questions,) is the number of the sentence in the passage of ``passage_ids``.
    """

    language: str
    questions: tuple[Question, ...]
    passage_ids: tuple[str, ...]
    gold: np.ndarray
    left_out: int


class SentenceLevelEvaluator:
    """The evaluation of one encoder after the other on the sentences of the gold passages.

    Sentences are those that the corpus marks (``Corpus.sentence_breaks``) if it does, else those
    that ICU finds. The gold sentence is the one that holds the first character of the first
    answer with a known place; questions without such an answer are left out and counted, and so
    is a language that has no others.
    ``question_texts`` and ``sentence_texts`` are the distinct texts that a call encodes.
    """

    def __init__(
        self, corpus: Corpus, *, split: str = "all", languages: Sequence[str] | None = None
    ) -> None:
        """Look up the gold sentences; ``split`` is how the results call these questions.

        Raises:
            DataError: no questions, a gold that is not in the corpus, or no answer with a place.
            UnknownNameError: the corpus has no questions in one of ``languages``.
        """
        self.corpus = corpus
        self.split = split
        chosen = corpus if languages is None else corpus.in_languages(languages)
        if not chosen.questions:
            raise DataError(f"corpus {corpus.name!r} has no questions here: nothing to evaluate")
        self.breaks: SentenceBreaks = "marked" if corpus.sentence_breaks else "icu"
        self._sentences: dict[str, _Sentences] = {}
        tasks = [self._task(chosen, code) for code in chosen.languages]
        self._tasks = tuple(task for task in tasks if task.questions)
        if not self._tasks:
            raise DataError(
                f"corpus {corpus.name!r}: no question here says at which character of its gold "
                "passage the answer starts; sentences cannot be evaluated without"
            )
        self._left_out = {task.language: task.left_out for task in tasks}
        asked = [question.text for task in self._tasks for question in task.questions]
        self.question_texts, question_rows = distinct(asked)
        texts = [text for sentences in self._sentences.values() for text in sentences.texts]
        self.sentence_texts, sentence_rows = distinct(texts)
        lengths = [len(task.questions) for task in self._tasks]
        self._question_rows = np.split(question_rows, np.cumsum(lengths)[:-1])
        counts = [len(sentences.texts) for sentences in self._sentences.values()]
        rows = np.split(sentence_rows, np.cumsum(counts)[:-1])
        self._sentence_rows = dict(zip(self._sentences, rows, strict=True))

    def __call__(self, encoder: Encoder, encode: Encode | None = None) -> SentenceLevelResult:
        """Evaluate ``encoder``, each distinct text encoded once.

        ``encode`` takes the place of ``encoder.encode``, for texts that are tokenised already.
        Equal scores rank the gold sentence last.
        """
        encode = encode or encoder.encode
        questions = on_grid(torch.from_numpy(encode(self.question_texts, "question")))
        sentences = on_grid(torch.from_numpy(encode(self.sentence_texts, "passage")))
        languages = {
            task.language: self._evaluate(task, questions[torch.from_numpy(rows)], sentences)
            for task, rows in zip(self._tasks, self._question_rows, strict=True)
        }
        counts = [
            len(self._sentences[passage_id].texts)
            for task in self._tasks
            for passage_id in task.passage_ids
        ]
        results = Results.of(
            languages,
            groups_of(languages, encoder.languages, self.corpus.document_language),
            encoder=encoder.name,
            weights=encoder.weights,
            corpus=self.corpus.name,
            pool="sentence",
            document_score="whole",
            split=self.split,
        )
        return SentenceLevelResult(
            results=results,
            breaks=self.breaks,
            sentences=float(np.mean(counts)),
            left_out=MappingProxyType(self._left_out),
        )

    def _task(self, corpus: Corpus, language: str) -> _Task:
        questions = corpus.questions_in(language)
        starts = [_answer_start(question) for question in questions]
        placed = [
            (q, start) for q, start in zip(questions, starts, strict=True) if start is not None
        ]
        passages = [self._passage(question) for question, _ in placed]
        gold = [
            self._sentences_of(passage).holding(start)
            for passage, (_, start) in zip(passages, placed, strict=True)
        ]
        return _Task(
            language,
            tuple(question for question, _ in placed),
            tuple(passage.id for passage in passages),
            np.array(gold, dtype=np.int64),
            len(questions) - len(placed),
        )

    def _passage(self, question: Question) -> Passage:
        gold = gold_id(question, "passage")
        if gold not in self.corpus.passage_by_id:
            raise DataError(
                f"question {question.id!r} of corpus {self.corpus.name!r}: its gold passage "
                f"{gold!r} is not in the corpus"
            )
        return self.corpus.passage_by_id[gold]

    def _sentences_of(self, passage: Passage) -> _Sentences:
        if passage.id not in self._sentences:
            self._sentences[passage.id] = _cut(passage, self.corpus)
        return self._sentences[passage.id]

    def _evaluate(
        self, task: _Task, questions: torch.Tensor, sentences: torch.Tensor
    ) -> LanguageResult:
        ranks = np.empty(len(task.questions), dtype=np.int64)
        for passage_id, places in _places(task.passage_ids).items():
            candidates = sentences[torch.from_numpy(self._sentence_rows[passage_id])]
            scores = (questions[torch.from_numpy(places)] @ candidates.T).numpy()
            ranks[places] = gold_ranks(scores, task.gold[places])
        return LanguageResult.from_ranks(ranks, [q.parallel_id for q in task.questions])


def _answer_start(question: Question) -> int | None:
    starts = (answer.start for answer in question.answers)
    return next((start for start in starts if start is not None), None)


def _cut(passage: Passage, corpus: Corpus) -> _Sentences:
    breaks = corpus.sentence_breaks.get(passage.id)
    if breaks is None:
        starts = sentence_starts(passage.text, corpus.document_language)
        breaks = tuple(zip(starts, [*starts[1:], len(passage.text)], strict=True))
    cut = [(start, passage.text[start:end].strip()) for start, end in breaks]
    kept = [(start, text) for start, text in cut if text]
    return _Sentences(tuple(start for start, _ in kept), tuple(text for _, text in kept))


def _places(passage_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return which questions each passage answers."""
    found: dict[str, list[int]] = {}
    for place, passage_id in enumerate(passage_ids):
        found.setdefault(passage_id, []).append(place)
    return {passage_id: np.array(places) for passage_id, places in found.items()}
