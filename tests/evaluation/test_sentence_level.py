from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.corpora import Answer, Corpus, Document, Passage, Question, load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import DataError, UnknownNameError
from clrelkt.evaluation.sentence_level import SentenceLevelEvaluator

BEES = "Bees make honey. The queen lays eggs. Drones do little else than eat."
IRON = "Iron rusts. Rust is red and iron is grey."


def asked(language: str, number: int, text: str, gold: str, answer: str, passage: str) -> Question:
    return Question(
        f"{language}:{number}",
        language,
        text,
        gold.partition("#")[0],
        gold,
        (Answer(answer, passage.index(answer)),),
        f"parallel-{number}",
    )


@pytest.fixture
def sentences() -> Corpus:
    documents = tuple(
        Document(name, name, (Passage(f"{name}#0", name, text),))
        for name, text in (("bees", BEES), ("iron", IRON))
    )
    questions = (
        asked("en", 0, "queen eggs", "bees#0", "lays", BEES),
        asked("en", 1, "honey of the queen", "bees#0", "Drones", BEES),
        asked("en", 2, "red rust", "iron#0", "grey", IRON),
        asked("de", 0, "queen lays", "bees#0", "eggs", BEES),
        asked("de", 2, "rusts", "iron#0", "Iron", IRON),
    )
    return Corpus("toy", questions, documents)


def reference(encoder: Any, corpus: Corpus, cut: dict[str, list[str]], language: str) -> list[int]:
    ranks = []
    for question in corpus.questions_in(language):
        texts = cut[question.passage_id or ""]
        [vector] = encoder.encode([question.text], "question")
        scores = [float(encoder.encode([text])[0] @ vector) for text in texts]
        passage = corpus.passage_by_id[question.passage_id or ""].text
        start = question.answers[0].start or 0
        ends = np.cumsum([len(text) + 1 for text in texts])
        assert " ".join(texts) == passage
        gold = int(np.argmax(ends > start))
        ranks.append(sorted(scores, reverse=True).index(scores[gold]) + 1)
    return ranks


CUT = {
    "bees#0": ["Bees make honey.", "The queen lays eggs.", "Drones do little else than eat."],
    "iron#0": ["Iron rusts.", "Rust is red and iron is grey."],
}


def test_ranks_are_what_plain_dot_products_give(encoder: Any, sentences: Corpus) -> None:
    found = SentenceLevelEvaluator(sentences, split="dev")(encoder)
    assert (found.breaks, found.results.split, found.results.pool) == ("icu", "dev", "sentence")
    assert found.sentences == (3 + 3 + 2 + 3 + 2) / 5
    for language, result in found.results.languages.items():
        assert result.ranks is not None
        assert result.ranks.tolist() == reference(encoder, sentences, CUT, language)
    assert found.values["hit_rate@5"] == 1
    assert found.values["hit_rate@1/de"] == found.results.languages["de"].hit_rate_at_1
    assert found.values["hit_rate@1/supported"] == found.values["hit_rate@1/de"]
    assert found.to_json()["languages"]["en"]["questions"] == 3


def test_marked_sentences_come_before_those_of_icu(encoder: Any, sentences: Corpus) -> None:
    halves = ((0, 37), (38, len(BEES)))
    marked = replace(sentences, sentence_breaks={"bees#0": halves})
    evaluator = SentenceLevelEvaluator(marked, languages=["en"])
    assert evaluator.breaks == "marked"
    # The other passage is not marked and is cut by ICU.
    assert set(evaluator.sentence_texts) == {BEES[:37], BEES[38:], *CUT["iron#0"]}
    assert evaluator(encoder).sentences == 2


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("Bees", 0), ("honey.", 0), (" The", 0), ("The", 1), ("eggs", 1), ("Drones", 2), ("eat.", 2)],
)
def test_the_gold_sentence_holds_the_first_character(
    answer: str, sentence: int, sentences: Corpus
) -> None:
    class OneSentence:
        name, weights, dimension = "one", "", 3
        languages: frozenset[str] = frozenset()

        def encode(
            self, texts: Sequence[str], kind: Any = "passage", *, progress: bool = False
        ) -> Any:
            if kind == "question":
                return np.eye(3, dtype=np.float32)[[sentence] * len(texts)]
            return np.eye(3, dtype=np.float32)[[CUT["bees#0"].index(text) for text in texts]]

    question = asked("en", 0, "?", "bees#0", answer, BEES)
    found = SentenceLevelEvaluator(sentences.with_questions([question]))(OneSentence())
    assert found.values["hit_rate@1"] == 1


def test_a_sentence_that_stands_twice_is_no_hit(encoder: Any, sentences: Corpus) -> None:
    twice = "Iron rusts. Iron rusts."
    documents = (Document("iron", "iron", (Passage("iron#0", "iron", twice),)),)
    question = asked("en", 0, "Iron rusts", "iron#0", "rusts", twice)
    corpus = replace(sentences, documents=documents, questions=(question,))
    result = SentenceLevelEvaluator(corpus)(encoder).results.languages["en"]
    assert result.ranks is not None
    assert result.ranks.tolist() == [2]


def test_answers_without_a_place_are_left_out_and_counted(encoder: Any, sentences: Corpus) -> None:
    first, *others = sentences.questions
    unplaced = replace(first, answers=(Answer("lays"),))
    found = SentenceLevelEvaluator(sentences.with_questions([unplaced, *others]))(encoder)
    assert found.left_out == {"en": 1, "de": 0}
    assert found.results.languages["en"].questions == 2
    later = replace(first, answers=(Answer("lays"), Answer("eggs", BEES.index("eggs"))))
    found = SentenceLevelEvaluator(sentences.with_questions([later, *others]))(encoder)
    assert found.left_out == {"en": 0, "de": 0}


def test_a_language_without_places_is_left_out(encoder: Any, sentences: Corpus) -> None:
    questions = [
        replace(question, answers=()) if question.language == "de" else question
        for question in sentences.questions
    ]
    found = SentenceLevelEvaluator(sentences.with_questions(questions))(encoder)
    assert list(found.results.languages) == ["en"]
    assert found.left_out == {"en": 0, "de": 2}


def test_what_cannot_be_measured_is_refused(sentences: Corpus) -> None:
    bare = replace(sentences.questions[0], answers=())
    with pytest.raises(DataError, match="no question here says"):
        SentenceLevelEvaluator(sentences.with_questions([bare]))
    with pytest.raises(DataError, match="no questions"):
        SentenceLevelEvaluator(sentences.with_questions([]))
    with pytest.raises(UnknownNameError, match="'el'"):
        SentenceLevelEvaluator(sentences, languages=["el"])
    lost = replace(sentences.questions[0], passage_id="bees#7")
    with pytest.raises(DataError, match="'bees#7' is not in the corpus"):
        SentenceLevelEvaluator(sentences.with_questions([lost]))
    nowhere = replace(sentences.questions[0], passage_id=None)
    with pytest.raises(DataError, match="names no gold passage"):
        SentenceLevelEvaluator(sentences.with_questions([nowhere]))


def test_each_distinct_text_is_encoded_once(encoder: Any, sentences: Corpus) -> None:
    SentenceLevelEvaluator(sentences)(encoder)
    assert set(encoder.encoded.values()) == {1}


def test_muse_finds_what_the_paper_says(data_folder: Path, muse: MuseEncoder) -> None:
    corpus = load_corpus(data_folder / "xquad_r")
    found = SentenceLevelEvaluator(corpus, languages=["en"])(muse)
    # The paper prints .712 for mUSE on XQuAD's English questions.
    assert found.values["hit_rate@1"] == pytest.approx(0.712, abs=0.005)
    assert (found.breaks, found.left_out) == ("marked", {"en": 0})
