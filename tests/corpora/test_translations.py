from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora import (
    Corpus,
    Question,
    check_path,
    inspect_path,
    load_corpus,
    take_split,
    with_translations,
)
from clrelkt.corpora.translations import translations_beside
from clrelkt.errors import CorpusError

MODEL: dict[str, object] = {
    "name": "made/by-hand",
    "revision": None,
    "settings": {},
    "transformers": "5",
}


def ask(language: str, parallel_id: str, text: str) -> Question:
    return Question(f"{language}:{parallel_id}", language, text, "d", "d#0", (), parallel_id)


CORPUS = Corpus(
    "made",
    (
        ask("fi", "1", "Kuka?"),
        ask("ja", "2", "誰?"),
        ask("en", "2", "Who is it?"),
        ask("fi", "3", "Mikä?"),
        ask("en", "fi:3", "What else?"),
    ),
    (),
)


def line(question: Question, translation: str, **changes: Any) -> dict[str, Any]:
    record = {
        "id": question.id,
        "language": question.language,
        "text": question.text,
        "target": "en",
        "translation": translation,
        "flaw": None,
        "model": MODEL,
    }
    return record | changes


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_added(tmp_path: Path) -> None:
    kuka, dare, _, mika, _ = CORPUS.questions
    lines = [line(mika, "What?"), line(dare, "Who?"), line(kuka, "Who?")]
    found = with_translations(CORPUS, write(tmp_path / "t.jsonl", lines))
    assert found.questions[: len(CORPUS.questions)] == CORPUS.questions
    added = found.questions[len(CORPUS.questions) :]
    assert [(q.id, q.language, q.text, q.parallel_id) for q in added] == [
        ("en:fi:1", "en", "Who?", "1"),
        ("en:fi:3+", "en", "What?", "3"),  # "en:fi:3" is a question of another id.
    ]
    assert {q.translated_by for q in added} == {"made/by-hand"}
    assert {q.translated_by for q in CORPUS.questions} == {None}
    assert {(q.document_id, q.passage_id) for q in added} == {("d", "d#0")}
    assert found.translation(kuka, "en") == added[0]
    # What a person has translated stays so.
    assert found.translation(dare, "en") == CORPUS.questions[2]


def test_what_is_marked_is_not_used(tmp_path: Path) -> None:
    kuka, mika = CORPUS.questions[0], CORPUS.questions[3]
    lines = [line(kuka, "", flaw="empty"), line(mika, "What is it that", flaw="cut short")]
    assert with_translations(CORPUS, write(tmp_path / "t.jsonl", lines)) == CORPUS


KUKA = CORPUS.questions[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "fi:9"}, "made has no question 'fi:9'"),
        ({"text": "Mitä?"}, "translates 'Mitä?' (fi), but the question is 'Kuka?' (fi)"),
        ({"language": "sv"}, "translates 'Kuka?' (sv)"),
        ({"language": "xx"}, "language 'xx' is no code of ISO 639-1"),
        ({"target": "de"}, "translates into 'de', but the documents are in 'en'"),
        ({"translation": " "}, "translation is empty"),
        ({"translation": 3}, "is a number, expected text"),
        ({"flaw": "odd"}, "is 'odd', expected null or one of empty, cut short"),
        ({"model": "opus"}, "is text, expected an object with 'name'"),
        ({"model": {}}, "has no 'name'"),
        ({"id": ""}, "id is empty"),
    ],
)
def test_faults_name_file_and_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = line(CORPUS.questions[3], "What?")
    path = write(tmp_path / "t.jsonl", [good, line(KUKA, "Who?") | changes])
    with pytest.raises(CorpusError, match=re.escape(message)) as caught:
        with_translations(CORPUS, path)
    assert {fault.file for fault in caught.value.faults} == {str(path)}
    assert caught.value.faults[0].record.startswith("line 2")


def test_lines_that_are_missing_keys_repeated_or_no_json(tmp_path: Path) -> None:
    bare = {"id": "fi:1"}
    path = write(tmp_path / "t.jsonl", [bare, line(KUKA, "Who?"), line(KUKA, "Who?")])
    path.write_text(path.read_text("utf-8") + '{"id": "fi:3", "la', "utf-8")
    with pytest.raises(CorpusError) as caught:
        with_translations(CORPUS, path)
    messages = [f"{fault.record}: {fault.message}" for fault in caught.value.faults]
    missing = ("language", "target", "text", "translation", "model")
    assert messages[:5] == [f"line 1 (id fi:1): has no {key!r}" for key in missing]
    assert messages[5] == (
        "line 3 (id fi:1): id 'fi:1' stands at line 2 too; leave one of them out"
    )
    assert "line 4" in messages[6]
    assert "is not valid JSON" in messages[6]


@pytest.fixture
def german_file(tmp_path: Path) -> Path:
    """German questions on an English text."""
    qas = [
        {"id": str(number), "question": text, "answers": [{"text": "Ada", "answer_start": 0}]}
        for number, text in enumerate(["Wer war es?", "Wer noch?"])
    ]
    article = {"title": "Tea", "paragraphs": [{"context": "Ada drank it.", "qas": qas}]}
    path = tmp_path / "tea.question-de.json"
    path.write_text(json.dumps({"data": [article]}), encoding="utf-8")
    return path


def test_translations_beside_a_file_are_found(german_file: Path) -> None:
    plain = load_corpus(german_file)
    beside = translations_beside(german_file)
    assert beside.name == "tea.question-de.translations.jsonl"
    write(beside, [line(question, "Who?") for question in plain.questions])
    found = load_corpus(german_file)
    assert found.languages == ("en", "de")
    assert all(found.translation(question, "en") is not None for question in plain.questions)
    assert load_corpus(german_file, translations=False) == plain
    assert not check_path(german_file.parent)
    assert inspect_path(german_file.parent).questions == {"de": 2}
    assert inspect_path(beside).questions == {"de": 2}


def test_check_looks_at_translations_too(german_file: Path) -> None:
    plain = load_corpus(german_file)
    lines = [line(plain.questions[0], "Who?", text="Wer?"), line(plain.questions[1], "")]
    beside = write(translations_beside(german_file), lines)
    for path in (beside, german_file.parent):
        faults = check_path(path)
        assert [(fault.file, fault.record) for fault in faults] == [
            (str(beside), "line 1 (id de:0)"),
            (str(beside), "line 2.translation (id de:1)"),
        ]
    for name in ("alone-translations.jsonl", "other.jsonl"):
        beside = beside.rename(beside.with_name(name))
        assert [fault.message for fault in check_path(beside)] == ["translation is empty"]


def test_a_folder_of_xor_questions(data_folder: Path, tmp_path: Path) -> None:
    source = data_folder / "xorqa"
    for path in source.iterdir():
        (tmp_path / path.name).symlink_to(path)
    plain = load_corpus(tmp_path)
    needy = [
        question
        for question in take_split(plain, "test").questions
        if question.language != "en" and plain.translation(question, "en") is None
    ]
    assert len(needy) > 2000  # Nobody has translated the dev questions, 42 apart.
    chosen = needy[:500]
    write(tmp_path / "translations.jsonl", [line(question, "Who?") for question in chosen])
    found = load_corpus(tmp_path)
    assert len(found.questions) == len(plain.questions) + 500
    made = [question for question in found.questions if question.translated_by is not None]
    assert {question.parallel_id for question in made} == {q.parallel_id for q in chosen}
    tested = {question.id for question in take_split(found, "test").questions}
    assert {question.id for question in made} <= tested
    assert not check_path(tmp_path / "translations.jsonl")
