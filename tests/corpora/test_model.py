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


def test_without_documents_by_id_and_by_title() -> None:
    twin = Document("one-b", "One", (Passage("one-b#0", "one-b", "E."),))
    corpus = Corpus(
        "made",
        (ask("ru", "1"), ask("de", "1", "two"), ask("de", "2", "one-b"), ask("en", "3", None)),
        (ONE, TWO, twin),
        pools={"de": ("two", "one-b"), "ru": ("one",)},
        fixed_split=FixedSplit({"1": "test", "2": "fit", "3": "fit"}, {"test": {"de": ("two",)}}),
        passage_translations={"de": {"one#1": "C!", "two#0": "D!"}},
    )
    by_title = corpus.without_documents(["One"])
    assert [question.id for question in by_title.questions] == ["de:1", "en:3"]
    assert by_title.documents == (TWO,)
    assert by_title.pools == {"de": ("two",), "ru": ()}
    assert by_title.passage_translations == {"de": {"two#0": "D!"}}
    by_id = corpus.without_documents(["two"])
    assert [question.id for question in by_id.questions] == ["ru:1", "de:2", "en:3"]
    assert by_id.pool("de") == (twin,)
    assert by_id.fixed_split is not None
    assert by_id.fixed_split.pools == {"test": {"de": ()}}
    assert corpus.without_documents([]) == corpus


def test_documents_to_leave_out_must_be_there() -> None:
    with pytest.raises(DataError, match="'made' has no document with the id or title 'x', 'y'"):
        CORPUS.without_documents(["One", "x", "y"])
