"""What words alone find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clrelkt.corpora.model import Corpus, Question
from clrelkt.errors import DataError
from clrelkt.evaluation.results import LanguageResult, Results
from clrelkt.evaluation.retrieval import (
    EvaluationSettings,
    LanguageTask,
    label_results,
    language_tasks,
)
from clrelkt.mining.bm25 import BM25Index
from clrelkt.text.words import WordTokenizer

__all__ = ["BM25_NAME", "evaluate_bm25"]

BM25_NAME = "bm25 (English question)"
"""How the baseline is called in results."""


def evaluate_bm25(
    corpus: Corpus,
    settings: EvaluationSettings,
    words: WordTokenizer,
    *,
    split: str = "all",
    languages: Sequence[str] | None = None,
    known: frozenset[str] = frozenset(),
) -> Results:
    """Return what BM25 finds with each question's translation into the documents' language.

    ``corpus`` must hold those translations. Questions without one are left out, as the number of
    questions shows, and so is a language that has none. ``known`` are the languages of the encoder
    that the baseline stands beside, for the same means.

    Raises:
        DataError: no question has a translation, or a gold is not in its pool.
        UnknownNameError: the corpus has no questions in one of ``languages``.
    """
    indexes: dict[tuple[str, ...], BM25Index] = {}
    found: dict[str, LanguageResult] = {}
    for task in language_tasks(corpus, settings, languages):
        english = _translations(task.questions, corpus)
        if not english:
            continue
        scored = task.scored
        if scored.ids not in indexes:
            indexes[scored.ids] = BM25Index(scored.ids, scored.texts, words)
        found[task.language] = _evaluate_language(task, english, indexes[scored.ids])
    if not found:
        raise DataError(
            f"no question of corpus {corpus.name!r} has a translation into "
            f"{corpus.document_language!r}: the BM25 baseline cannot be computed"
        )
    return label_results(
        found, corpus, settings, split=split, encoder=BM25_NAME, weights="", known=known
    )


def _translations(questions: Sequence[Question], corpus: Corpus) -> dict[int, str]:
    """Return each question's text in the documents' language, where there is one, by number."""
    translated = (corpus.translation(question, corpus.document_language) for question in questions)
    return {number: found.text for number, found in enumerate(translated) if found is not None}


def _evaluate_language(
    task: LanguageTask, english: Mapping[int, str], index: BM25Index
) -> LanguageResult:
    asked = task.only(np.array(list(english), dtype=np.int64))
    texts = list(english.values())
    return asked.result(asked.ranks(index.scores(texts[rows]), rows) for rows in asked.blocks())
