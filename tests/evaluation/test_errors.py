from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.corpora import Answer, Corpus, Document, Passage, Question
from clrelkt.errors import DataError, SettingsError
from clrelkt.evaluation import EvaluationSettings, Results, RetrievalEvaluator
from clrelkt.evaluation.encoding import remembered
from clrelkt.evaluation.errors import CAUSES, WrongAnswer, find_errors, write_errors

TEXTS = {
    "bees": ("bees make honey", "the queen lays eggs"),
    "bears": ("bears love honey", "winter sleep is long"),
    "iron": ("iron is a metal", "rust is red"),
}
PLACES = {text: place for place, text in enumerate(t for texts in TEXTS.values() for t in texts)}
PLACES |= {" ".join(texts): 2 * place for place, texts in enumerate(TEXTS.values())}


class Pointing:
    """A passage is a direction, and a question points to the passage that its text names."""

    name, weights, dimension = "pointing", "", 6
    languages: frozenset[str] = frozenset()

    def encode(self, texts: Sequence[str], kind: Any = "passage", *, progress: bool = False) -> Any:
        directions = np.eye(6, dtype=np.float32)
        if kind == "passage":
            return directions[[PLACES[text] for text in texts]]
        return directions[[int(text.split()[-1]) for text in texts]]


@pytest.fixture
def corpus() -> Corpus:
    documents = tuple(
        Document(name, name, tuple(Passage(f"{name}#{n}", name, text) for n, text in enumerate(t)))
        for name, t in TEXTS.items()
    )
    rows = [
        # Language, number, where the question points, gold, answer.
        ("en", 0, 0, "bees#0", "honey"),
        ("en", 1, 4, "bees#1", "queen"),
        ("en", 2, 5, "iron#1", "red"),
        ("en", 3, 4, "iron#1", "ru"),
        ("de", 0, 2, "bees#0", "honey"),
        ("de", 1, 4, "bees#1", "queen"),
        ("de", 2, 0, "iron#1", "red"),
        ("de", 4, 0, "iron#1", "is"),
        ("fi", 2, 5, "iron#1", "red"),
        ("fi", 0, 3, "bees#0", "honey"),
    ]
    questions = tuple(
        Question(
            f"{code}:{number}",
            code,
            f"{code} {number} to {place}",
            gold[:-2],
            gold,
            (Answer(answer),),
            f"p{number}",
        )
        for code, number, place, gold, answer in rows
    )
    return Corpus("toy", questions, documents)


def found(corpus: Corpus, **more: Any) -> dict[str, WrongAnswer]:
    evaluator = RetrievalEvaluator(corpus, EvaluationSettings("passage"))
    encoder = Pointing()
    errors = find_errors(evaluator, evaluator(encoder), encoder.encode, **more)
    return {error.question_id: error for error in errors}


def test_each_wrong_answer_has_its_hit_and_its_gold(corpus: Corpus) -> None:
    errors = found(corpus)
    assert list(errors) == ["en:1", "en:3", "de:0", "de:1", "de:2", "de:4", "fi:0"]
    error = errors["en:1"]
    assert (error.hit_id, error.hit_passage_id, error.hit_text) == (
        "iron#0",
        "iron#0",
        "iron is a metal",
    )
    assert (error.gold_id, error.gold_text) == ("bees#1", "the queen lays eggs")
    # The gold ties with the four others that the question does not point to, and comes last.
    assert (error.hit_score, error.gold_score, error.gold_rank) == (1.0, 0.0, 6)
    assert (error.language, error.question, error.answers) == ("en", "en 1 to 4", ("queen",))


def test_the_worst_are_those_whose_gold_ranks_last(corpus: Corpus) -> None:
    evaluator = RetrievalEvaluator(corpus, EvaluationSettings("passage"))
    encoder = Pointing()
    results = evaluator(encoder)
    ranks = {"en": [1, 3, 1, 2], "de": [4, 9, 2, 1], "fi": [1, 7]}
    ranked = replace(
        results,
        languages={
            code: replace(row, ranks=np.array(ranks[code]))
            for code, row in results.languages.items()
        },
    )

    def worst(limit: int, languages: tuple[str, ...] | None = None) -> list[str]:
        errors = find_errors(
            evaluator, ranked, encoder.encode, limit=limit, worst=True, languages=languages
        )
        return [error.question_id for error in errors]

    assert worst(3) == ["de:0", "de:1", "fi:0"]
    assert worst(1) == ["de:1"]
    assert worst(9, ("en",)) == ["en:1", "en:3"]


def test_the_causes_follow_the_stated_rules(corpus: Corpus) -> None:
    causes = {id_: error.cause for id_, error in found(corpus).items()}
    assert causes == {
        "en:1": "missed-in-document-language",
        "en:3": "another-passage-of-the-gold-document",
        "de:0": "answer-in-hit",
        "de:1": "missed-in-document-language",
        "de:2": "only-this-language",
        "de:4": "no-question-to-compare-with",
        "fi:0": "several-languages",
    }
    assert set(causes.values()) == set(CAUSES)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("Honey", "answer-in-hit"),
        ("hone", "several-languages"),
        ("one", "several-languages"),
        ("make ho", "several-languages"),
        ("Bears love", "answer-in-hit"),
        ("be", "several-languages"),
    ],
)
def test_an_answer_in_the_hit_is_a_run_of_whole_words(
    corpus: Corpus, answer: str, cause: str
) -> None:
    questions = [
        replace(question, answers=(Answer(answer),)) if question.id == "de:0" else question
        for question in corpus.questions
    ]
    assert found(corpus.with_questions(questions))["de:0"].cause == cause


@pytest.mark.parametrize("score", ["whole", "best-passage"])
def test_of_a_document_the_passage_that_fits_best_is_shown(corpus: Corpus, score: Any) -> None:
    evaluator = RetrievalEvaluator(corpus, EvaluationSettings("document", score))
    encoder = Pointing()
    errors = {
        error.question_id: error
        for error in find_errors(evaluator, evaluator(encoder), encoder.encode)
    }
    # The right document, by its other passage, is no error among documents.
    assert "en:3" not in errors
    error = errors["de:0"]
    assert (error.hit_id, error.hit_passage_id) == ("bears", "bears#0")
    assert (error.gold_id, error.gold_passage_id) == ("bees", "bees#0")
    assert error.gold_text == "bees make honey"
    assert error.cause == "answer-in-hit"
    if score == "best-passage":
        assert (errors["fi:0"].hit_id, errors["fi:0"].hit_passage_id) == ("bears", "bears#1")


def test_a_sample_is_even_over_languages_and_repeatable(corpus: Corpus) -> None:
    three = found(corpus, limit=3)
    assert Counter(error.language for error in three.values()) == {"en": 1, "de": 1, "fi": 1}
    five = found(corpus, limit=5)
    assert Counter(error.language for error in five.values()) == {"en": 2, "de": 2, "fi": 1}
    assert found(corpus, limit=5) == five
    assert found(corpus, limit=100) == found(corpus)
    assert len({tuple(found(corpus, limit=3, seed=seed)) for seed in range(10)}) > 1


def test_what_cannot_be_done_is_refused(corpus: Corpus) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        found(corpus, limit=0)
    evaluator = RetrievalEvaluator(corpus)
    encoder = Pointing()
    stored = Results.from_json(evaluator(encoder).to_json())
    with pytest.raises(DataError, match="without ranks"):
        find_errors(evaluator, stored, encoder.encode)


def test_one_json_object_a_line(corpus: Corpus, tmp_path: Path) -> None:
    errors = tuple(found(corpus).values())
    write_errors(tmp_path / "new" / "errors.jsonl", errors)
    lines = (tmp_path / "new" / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    record = json.loads(lines[2])
    assert (record["question_id"], record["cause"]) == ("de:0", "answer-in-hit")
    assert record["hit_text"] == "bears love honey"


def test_long_texts_are_cut(corpus: Corpus) -> None:
    long = "iron is a metal " + "and heavy " * 60
    PLACES[long] = 4
    documents = [
        replace(d, passages=(Passage("iron#0", "iron", long), d.passages[1]))
        if d.id == "iron"
        else d
        for d in corpus.documents
    ]
    error = found(replace(corpus, documents=tuple(documents)))["en:1"]
    assert error.hit_text == long[:300]


def test_remembered_texts_are_encoded_once() -> None:
    calls: list[tuple[str, ...]] = []

    def encode(texts: Sequence[str], kind: Any) -> np.ndarray:
        calls.append(tuple(texts))
        return np.zeros((len(texts), 2), np.float32)

    once = remembered(encode)
    assert once(["a", "b"], "question") is once(("a", "b"), "question")
    once(["a", "b"], "passage")
    once(["b", "a"], "question")
    assert calls == [("a", "b"), ("a", "b"), ("b", "a")]
