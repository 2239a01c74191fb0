from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.encoders import MuseEncoder
from clrelkt.search import Index, IndexDocument

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
