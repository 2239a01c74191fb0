from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clrelkt.corpora import Corpus, load_corpus
from clrelkt.errors import DataError
from clrelkt.evaluation import EvaluationSettings, evaluate_bm25
from clrelkt.text import IcuWords

WORDS = IcuWords()


def test_bm25_asks_with_the_translation_in_the_languages_pool(corpus: Corpus) -> None:
    results = evaluate_bm25(corpus, EvaluationSettings(), WORDS, split="dev")
    ranks = {code: row.ranks.tolist() for code, row in results.languages.items()}  # type: ignore[union-attr]
    # The German text of question 1 would find bees; its translation finds bears.
    assert ranks == {"en": [1, 1, 1], "de": [1, 1], "fi": [1]}
    assert results.encoder == "bm25 (English question)"
    assert results.split == "dev"
    assert results.means == {}


def test_a_query_that_finds_nothing_ranks_the_gold_last(corpus: Corpus) -> None:
    questions = [
        replace(question, text="unheard of") if question.id == "en:0" else question
        for question in corpus.questions
    ]
    results = evaluate_bm25(corpus.with_questions(questions), EvaluationSettings("passage"), WORDS)
    assert results.languages["en"].ranks.tolist()[0] == 6  # type: ignore[union-attr]
    assert results.languages["de"].ranks.tolist()[0] == 4  # type: ignore[union-attr]


def test_best_passage_scores_a_document_by_its_best(corpus: Corpus) -> None:
    settings = EvaluationSettings("document", "best-passage")
    results = evaluate_bm25(corpus, settings, WORDS, languages=["de"])
    assert results.languages["de"].hit_rate_at_1 == 1.0


def test_questions_without_translation_are_left_out(corpus: Corpus) -> None:
    fewer = corpus.with_questions(q for q in corpus.questions if q.id not in {"en:0", "en:2"})
    results = evaluate_bm25(fewer, EvaluationSettings(), WORDS, known=frozenset({"de"}))
    assert {code: row.questions for code, row in results.languages.items()} == {"en": 1, "de": 1}
    assert results.groups == {"supported": ("de",)}
    with pytest.raises(DataError, match="no question of corpus 'toy' has a translation"):
        evaluate_bm25(fewer, EvaluationSettings(), WORDS, languages=["fi"])


@pytest.mark.parametrize(("pool", "first"), [("document", 0.955), ("passage", 0.918)])
def test_known_figures_on_xquad(data_folder: Path, pool: str, first: float) -> None:
    corpus = load_corpus(data_folder / "xquad")
    settings = EvaluationSettings(pool)  # type: ignore[arg-type]
    results = evaluate_bm25(corpus, settings, WORDS, languages=["en", "th"])
    assert results.languages["th"] == results.languages["en"]
    assert results.languages["en"].hit_rate_at_1 == pytest.approx(first, abs=0.006)
