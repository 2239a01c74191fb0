from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clrelkt.encoders import MuseEncoder
from clrelkt.errors import DataError, SettingsError
from clrelkt.search import Index, IndexDocument, IndexSettings

DOCUMENTS = (
    IndexDocument(
        "fleming",
        "Alexander Fleming was a doctor in London. He discovered penicillin in 1928. "
        "A mould had killed the bacteria in a dish that he had left open.",
        "Alexander Fleming",
        "en",
        {"year": 1928, "field": "medicine"},
    ),
    IndexDocument(
        "brücke",
        "Die alte Brücke wurde 1209 gebaut. Sie hat sieben Bögen aus Stein.",
        "Die Brücke",
        metadata={"year": 1209},
    ),
    IndexDocument("bees", passages=(("b-1", "Bees make honey."), ("b-2", "They live in hives."))),
)


@pytest.fixture(scope="module")
def small(muse: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index.build(muse, DOCUMENTS, tmp_path_factory.mktemp("index") / "small")


def test_a_question_in_another_language_finds_the_sentence_that_answers_it(small: Index) -> None:
    first, *rest = small.search("¿Quién descubrió la penicilina?", k=3)
    assert (first.rank, first.document_id, first.passage_id) == (1, "fleming", "fleming#0")
    assert (first.title, first.language) == ("Alexander Fleming", "en")
    assert first.metadata == {"year": 1928, "field": "medicine"}
    (found,) = first.highlights
    assert first.text[found.start : found.stop] == "He discovered penicillin in 1928."
    assert first.score > rest[0].score


def test_languages_are_detected_and_given_passages_stay(small: Index) -> None:
    assert small.languages() == {"de": 1, "en": 2}
    bees = small.document("bees")
    assert bees is not None
    assert [(passage.id, passage.text) for passage in bees.passages] == [
        ("b-1", "Bees make honey."),
        ("b-2", "They live in hives."),
    ]
    assert [document.id for document in small.documents()] == ["fleming", "brücke", "bees"]


def test_filters_by_language_and_metadata(small: Index) -> None:
    def found(**options: object) -> list[str]:
        return [hit.passage_id for hit in small.search("bees", **options)]  # type: ignore[arg-type]

    assert set(found()) == {"fleming#0", "brücke#0", "b-1", "b-2"}
    assert found(languages=["de"]) == ["brücke#0"]
    assert found(where={"year": 1928}) == ["fleming#0"]
    assert found(where={"year": 1928}, languages=["de"]) == []
    assert found(k=1) == ["b-1"]
    assert sorted(found(by="document"))[0] == "b-1"
    assert len(found(by="document")) == 3


def test_documents_are_added_replaced_and_deleted(muse: MuseEncoder, tmp_path: Path) -> None:
    index = Index.build(muse, DOCUMENTS, tmp_path / "index")
    reader = Index.open(tmp_path / "index", muse)
    assert index.add([IndexDocument("tea", "Tea is grown in Assam.", language="en")]) == 1
    assert index.replace([IndexDocument("bees", "Bees dance to tell the way.", language="en")]) == 1
    assert index.delete(["brücke"]) == 1
    assert index.version == 4
    assert {hit.passage_id for hit in index.search("bees")} == {"fleming#0", "tea#0", "bees#0"}
    assert {hit.document_id for hit in reader.search("bees")} == {"fleming", "brücke", "bees"}
    assert (len(reader), len(index), index.passages) == (3, 3, 3)
    assert reader.refresh()
    assert not reader.refresh()
    assert (reader.version, [d.id for d in reader.documents()]) == (4, ["fleming", "tea", "bees"])


@pytest.mark.parametrize(
    ("question", "options", "error", "message"),
    [
        (" ", {}, DataError, "the question is empty"),
        ("\ud800", {}, DataError, "half of a surrogate pair"),
        ("bees", {"k": 0}, SettingsError, "k is 0"),
        ("bees", {"by": "word"}, SettingsError, "by is 'word'"),
    ],
)
def test_questions_that_cannot_be_asked(
    small: Index, question: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small.search(question, **options)


def test_languages_take_turns(small: Index) -> None:
    question = "Wie viele Bögen hat die alte Brücke?"
    plain = [hit.language for hit in small.search(question)]
    assert plain[0] == "de"
    balanced = small.search(question, balanced=True)
    assert {hit.language for hit in balanced[:2]} == {"de", "en"}
    assert len(balanced) == len(plain)
    assert [hit.rank for hit in balanced] == [1, 2, 3, 4]


def test_values_of_metadata(small: Index) -> None:
    def found(**where: Any) -> set[str]:
        return {hit.document_id for hit in small.search("bees", where=where)}

    assert found(year=(1928, 1209)) == {"fleming", "brücke"}
    assert found(year=1928.0) == {"fleming"}
    assert found(year="1928") == found(year=True) == found(nothing=1) == set()


def test_highlights_without_stored_sentences_are_the_same(
    muse: MuseEncoder, small: Index, tmp_path: Path
) -> None:
    bare = Index.build(muse, DOCUMENTS, tmp_path / "bare", settings=IndexSettings(sentences=False))
    for question in ("¿Quién descubrió la penicilina?", "Wie viele Bögen hat die Brücke?"):
        for stored, encoded in zip(small.search(question), bare.search(question), strict=True):
            (first,), (second,) = stored.highlights, encoded.highlights
            assert (first.start, first.stop) == (second.start, second.stop)
            assert first.score == pytest.approx(second.score, abs=0.01)


def test_a_warm_search_encodes_the_question_alone(muse: MuseEncoder, tmp_path: Path) -> None:
    encoded: list[str] = []

    class Listening(MuseEncoder):
        def encode(self, texts, kind="passage", *, progress=False):  # type: ignore[no-untyped-def]
            encoded.extend(texts)
            return super().encode(texts, kind, progress=progress)

    listening = Listening(muse.network, muse.tokenizer, muse.identity)
    for sentences in (True, False):
        settings = IndexSettings(sentences=sentences)
        with Index.build(listening, DOCUMENTS, tmp_path / str(sentences), settings=settings) as own:
            own.search("Wer entdeckte das Penicillin?")
            encoded.clear()
            own.search("Who built the bridge?")
            assert encoded == ["Who built the bridge?"]


def test_an_index_without_words_has_no_hybrid_search(muse: MuseEncoder, tmp_path: Path) -> None:
    with Index.build(muse, DOCUMENTS, tmp_path / "i", settings=IndexSettings(words=False)) as index:
        assert index.search("bees")[0].passage_id == "b-1"
        with pytest.raises(SettingsError, match="--words"):
            index.search("bees", hybrid=True)


def test_an_empty_index_finds_nothing(muse: MuseEncoder, tmp_path: Path) -> None:
    with Index.build(muse, [], tmp_path / "i") as index:
        assert index.search("bees") == index.search("bees", balanced=True, by="document") == []
        assert index.add(DOCUMENTS) == 3
        assert index.delete(["fleming", "brücke", "bees"]) == 3
        assert (len(index), index.search("bees")) == (0, [])
