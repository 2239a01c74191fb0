from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora.check import check_path, inspect_path
from clrelkt.corpora.loading import load_corpus
from clrelkt.corpora.parallel import read_parallel
from clrelkt.errors import CorpusError, DataError

ENGLISH: dict[str, list[tuple[str, dict[str, tuple[str, str]]]]] = {
    "Bees": [
        ("Bees dance.", {"a": ("How do bees talk?", "dance")}),
        ("Honey is sweet.", {"b": ("What is sweet?", "Honey")}),
    ],
    "Tea": [("Tea is green.", {"c": ("Which colour?", "green")})],
}
GERMAN: dict[str, list[tuple[str, dict[str, tuple[str, str]]]]] = {
    "Bees": [
        ("Bienen tanzen.", {"a": ("Wie reden Bienen?", "tanzen")}),
        ("Honig ist süß.", {"b": ("Was ist süß?", "Honig")}),
    ],
    "Tea": [("Tee ist grün.", {"c": ("Welche Farbe?", "grün")})],
}


def write(path: Path, titles: dict[str, list[tuple[str, dict[str, tuple[str, str]]]]]) -> Path:
    def qa(context: str, id_: str, question: str, answer: str) -> dict[str, Any]:
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        return {"id": id_, "question": question, "answers": answers}

    data = [
        {
            "title": title,
            "paragraphs": [
                {"context": context, "qas": [qa(context, id_, *asked[id_]) for id_ in asked]}
                for context, asked in passages
            ],
        }
        for title, passages in titles.items()
    ]
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


def messages(folder: Path) -> list[tuple[str, str, str]]:
    return [(Path(f.file).name, f.record, f.message) for f in check_path(folder)]


def test_documents_and_answers_are_those_of_the_english_file(tmp_path: Path) -> None:
    write(tmp_path / "set.en.json", ENGLISH)
    write(tmp_path / "set.de.json", GERMAN)
    corpus = load_corpus(tmp_path)
    assert corpus.name == tmp_path.name
    assert corpus.languages == ("en", "de")
    assert [document.text for document in corpus.documents] == [
        "Bees dance. Honey is sweet.",
        "Tea is green.",
    ]
    question = corpus.question_by_parallel_id["b", "de"]
    assert (question.id, question.text) == ("de:b", "Was ist süß?")
    assert (question.document_id, question.passage_id) == ("Bees", "Bees#1")
    assert [(answer.text, answer.start) for answer in question.answers] == [("Honey", 0)]
    assert corpus.translation(question, "en") == corpus.question_by_parallel_id["b", "en"]
    assert inspect_path(tmp_path).questions == {"de": 3, "en": 3}
    assert check_path(tmp_path) == []


def test_a_missing_question_is_a_fault_where_the_set_must_be_complete(tmp_path: Path) -> None:
    write(tmp_path / "set.en.json", ENGLISH)
    write(tmp_path / "set.de.json", {"Bees": GERMAN["Bees"]})
    assert messages(tmp_path) == [
        ("set.de.json", "id c", "the question is missing here; set.en.json has it")
    ]
    with pytest.raises(CorpusError, match="id c: the question is missing"):
        read_parallel(tmp_path, complete=True)
    assert len(load_corpus(tmp_path).questions) == 5


def test_a_question_without_its_english_twin_has_no_gold(tmp_path: Path) -> None:
    write(tmp_path / "set.en.json", {"Bees": ENGLISH["Bees"]})
    write(tmp_path / "set.de.json", GERMAN)
    expected = (
        "set.de.json",
        "data[1].paragraphs[0].qas[0] (id c)",
        "its gold passage is missing: set.en.json has no question 'c'",
    )
    assert messages(tmp_path) == [expected]
    with pytest.raises(CorpusError, match="its gold passage is missing"):
        load_corpus(tmp_path)


def test_one_id_with_two_documents_or_passages_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "set.en.json", ENGLISH)
    turned = {"Bees": GERMAN["Bees"][::-1], "Coffee": GERMAN["Tea"]}
    write(tmp_path / "set.de.json", turned)
    assert [message for _, _, message in messages(tmp_path)] == [
        "is a question of paragraph 0 of 'Bees' here, of paragraph 1 in English",
        "is a question of paragraph 1 of 'Bees' here, of paragraph 0 in English",
        "is a question of 'Coffee' here, of 'Tea' in English",
    ]


def test_two_files_of_one_language_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "one.en.json", ENGLISH)
    write(tmp_path / "two.json", ENGLISH)
    ((file, _, message),) = messages(tmp_path)
    assert file == "two.json"
    assert "questions in 'en', as one.en.json does" in message


def test_a_folder_without_english_or_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no JSON files here"):
        load_corpus(tmp_path)
    write(tmp_path / "set.de.json", GERMAN)
    with pytest.raises(DataError, match=r"no English file among set\.de\.json"):
        load_corpus(tmp_path)


def test_contexts_in_other_languages_are_translations_of_the_english_passages(
    tmp_path: Path,
) -> None:
    write(tmp_path / "x.en.json", ENGLISH)
    write(tmp_path / "x.de.json", GERMAN)
    corpus = read_parallel(tmp_path)
    assert corpus.passage_translations == {
        "de": {
            "Bees#0": "Bienen tanzen.",
            "Bees#1": "Honig ist süß.",
            "Tea#0": "Tee ist grün.",
        }
    }


def test_xquad_has_every_passage_in_every_language(data_folder: Path) -> None:
    corpus = read_parallel(data_folder / "xquad")
    assert set(corpus.passage_translations) == set(corpus.languages) - {"en"}
    for translated in corpus.passage_translations.values():
        assert set(translated) == set(corpus.passage_by_id)
    assert "Kawann Short" in corpus.passage_translations["el"]["Super_Bowl_50#0"]


def test_repeated_english_contexts_are_no_translations() -> None:
    assert load_corpus("bundled").passage_translations == {}
