from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter

import pytest

from clrelkt.corpora.bundled import bundled_folder, load_bundled
from clrelkt.corpora.check import check_path
from clrelkt.corpora.model import Corpus

SCRIPTS = {
    "en": "LATIN",
    "de": "LATIN",
    "es": "LATIN",
    "vi": "LATIN",
    "ru": "CYRILLIC",
    "ar": "ARABIC",
    "zh": "CJK",
    "th": "THAI",
    "hi": "DEVANAGARI",
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_bundled()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.casefold().replace("\u2019", "'"))


def content_words(text: str) -> set[str]:
    return {word for word in words(text) if len(word) > 3}


def english(corpus: Corpus) -> list[str]:
    return [question.text for question in corpus.questions_in("en")]


def test_it_has_the_size_that_it_says(corpus: Corpus) -> None:
    assert check_path(bundled_folder()) == []
    assert set(corpus.languages) == set(SCRIPTS)
    assert len(corpus.documents) >= 24
    assert {len(document.passages) for document in corpus.documents} == {3}
    for language in corpus.languages:
        asked = Counter(question.passage_id for question in corpus.questions_in(language))
        assert asked == dict.fromkeys(corpus.passage_by_id, 2)
    assert len({passage.text for passage in corpus.passage_by_id.values()}) == len(
        corpus.passage_by_id
    )


def test_answers_stand_at_their_place(corpus: Corpus) -> None:
    for question in corpus.questions:
        passage = corpus.passage_by_id[question.passage_id or ""]
        for answer in question.answers:
            assert answer.start is not None
            assert passage.text.startswith(answer.text, answer.start)


def test_no_question_is_asked_twice(corpus: Corpus) -> None:
    for language in corpus.languages:
        texts = [question.text.casefold() for question in corpus.questions_in(language)]
        assert len(set(texts)) == len(texts), language


def test_no_two_questions_are_on_one_template(corpus: Corpus) -> None:
    texts = english(corpus)
    beginnings = Counter(tuple(words(text)[:4]) for text in texts)
    assert [" ".join(start) for start, count in beginnings.items() if count > 1] == []
    alike = [
        (one, other)
        for one, other in itertools.combinations(texts, 2)
        if len(set(words(one)) & set(words(other))) > 0.6 * len(set(words(one)) | set(words(other)))
    ]
    assert alike == []


def test_questions_share_few_words_with_their_passage(corpus: Corpus) -> None:
    shares = []
    for question in corpus.questions_in("en"):
        passage = corpus.passage_by_id[question.passage_id or ""]
        asked = content_words(question.text)
        shares.append(len(asked & content_words(passage.text)) / len(asked))
    assert sum(shares) / len(shares) < 1 / 3


@pytest.mark.parametrize("language", SCRIPTS)
def test_questions_are_in_the_script_of_their_language(corpus: Corpus, language: str) -> None:
    for question in corpus.questions_in(language):
        letters = [
            unicodedata.name(character) for character in question.text if character.isalpha()
        ]
        own = sum(name.startswith(SCRIPTS[language]) for name in letters)
        assert own >= 0.7 * len(letters), question.text
    everything = "".join(question.text for question in corpus.questions_in(language))
    letters = [unicodedata.name(character) for character in everything if character.isalpha()]
    assert sum(name.startswith(SCRIPTS[language]) for name in letters) >= 0.97 * len(letters)


def test_the_licence_lies_beside_it() -> None:
    assert "CC BY-SA 4.0" in (bundled_folder() / "LICENSE.md").read_text(encoding="utf-8")
