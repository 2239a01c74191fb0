from __future__ import annotations

import pytest

from clrelkt.corpora.model import Corpus, Document, FixedSplit, Passage, Question
from clrelkt.errors import DataError, UnknownNameError

ONE = Document("one", "One", (Passage("one#0", "one", "A b."), Passage("one#1", "one", "C.")))
TWO = Document("two", "Two", (Passage("two#0", "two", "D."),))


def ask(language: str, parallel_id: str, document_id: str | None = "one") -> Question:
    text = f"{parallel_id}?"
    return Question(f"{language}:{parallel_id}", language, text, document_id, None, (), parallel_id)


CORPUS = Corpus(
    "made",
    (ask("ru", "1"), ask("de", "1"), ask("en", "1"), ask("de", "2", "gone")),
    (ONE, TWO),
    pools={"de": ("two",)},
    fixed_split=FixedSplit({"1": "test", "2": "fit"}),
)


def test_a_document_is_its_passages_joined_by_one_space() -> None:
    assert ONE.text == "A b. C."


def test_the_documents_language_comes_first() -> None:
    assert CORPUS.languages == ("en", "de", "ru")


def test_a_language_has_its_own_pool_or_all_documents() -> None:
    assert CORPUS.pool("de") == (TWO,)
    assert CORPUS.pool("ru") == (ONE, TWO)


def test_translations_are_found_by_parallel_id() -> None:
    german = CORPUS.questions[1]
    assert CORPUS.translation(german, "ru") == CORPUS.questions[0]
    assert CORPUS.translation(CORPUS.questions[3], "ru") is None


def test_fewer_questions_keep_everything_else() -> None:
    fewer = CORPUS.in_languages(["ru"])
    assert fewer.questions == CORPUS.questions[:1]
    assert (fewer.documents, fewer.pools) == (CORPUS.documents, CORPUS.pools)
    assert fewer.fixed_split is CORPUS.fixed_split
    with pytest.raises(UnknownNameError, match="no questions in 'th'; it has en de ru"):
        CORPUS.in_languages(["th"])


def test_a_gold_document_that_is_not_there_is_an_error() -> None:
    assert CORPUS.gold_document(CORPUS.questions[0]) is ONE
    with pytest.raises(DataError, match="'de:2' of corpus 'made': its gold document 'gone'"):
        CORPUS.gold_document(CORPUS.questions[3])
