from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora.check import check_path
from clrelkt.corpora.squad import read_squad
from clrelkt.errors import CorpusError

CONTEXT = "Bees dance. A dance tells the way to food."


def qa(id_: str = "q1", question: str = "How do bees talk?", start: int = 0) -> dict[str, Any]:
    answer = {"text": "Bees", "answer_start": start}
    return {"id": id_, "question": question, "answers": [answer]}


def article(title: str = "Bees", context: str = CONTEXT, *qas: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "paragraphs": [{"context": context, "qas": list(qas or [qa()])}]}


def write(folder: Path, *articles: Any, name: str = "bees.de.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"data": list(articles)}), encoding="utf-8")
    return path


def faults(path: Path) -> list[tuple[str, str]]:
    """Records and messages, which reading and checking must both give."""
    with pytest.raises(CorpusError) as caught:
        read_squad(path)
    assert list(caught.value.faults) == check_path(path)
    assert {fault.file for fault in caught.value.faults} == {str(path)}
    return [(fault.record, fault.message) for fault in caught.value.faults]


def test_a_sound_file_becomes_a_corpus(tmp_path: Path) -> None:
    first = article("Bees", CONTEXT, qa("a"), qa("b", "Was?", 0))
    first["paragraphs"].append({"context": "Honey is sweet.", "qas": []})
    corpus = read_squad(write(tmp_path, first))
    assert corpus.languages == ("de",)
    assert [document.id for document in corpus.documents] == ["Bees"]
    assert corpus.documents[0].text == f"{CONTEXT} Honey is sweet."
    assert [passage.id for passage in corpus.documents[0].passages] == ["Bees#0", "Bees#1"]
    question = corpus.questions[1]
    assert (question.id, question.parallel_id, question.text) == ("de:b", "b", "Was?")
    assert (question.document_id, question.passage_id) == ("Bees", "Bees#0")
    assert [(answer.text, answer.start) for answer in question.answers] == [("Bees", 0)]


def test_equal_questions_with_different_gold_are_legal(tmp_path: Path) -> None:
    corpus = read_squad(
        write(tmp_path, article("A", CONTEXT, qa("a")), article("B", "Bees fly.", qa("b")))
    )
    assert [q.document_id for q in corpus.questions] == ["A", "B"]
    assert corpus.questions[0].text == corpus.questions[1].text


def test_impossible_questions_are_left_out(tmp_path: Path) -> None:
    impossible = {"id": "x", "question": "Why?", "answers": [], "is_impossible": True}
    corpus = read_squad(write(tmp_path, article("A", CONTEXT, qa(), impossible)))
    assert [q.parallel_id for q in corpus.questions] == ["q1"]


def test_an_answer_out_of_place_tells_where_it_stands(tmp_path: Path) -> None:
    moved = qa(start=3)
    absent = {"id": "q2", "question": "Who?", "answers": [{"text": "Wasps", "answer_start": 0}]}
    negative = {"id": "q3", "question": "Where?", "answers": [{"text": ".", "answer_start": -1}]}
    assert faults(write(tmp_path, article("A", CONTEXT, moved, absent, negative))) == [
        (
            "data[0].paragraphs[0].qas[0].answers[0] (id q1)",
            "answer 'Bees' is not in the passage at character 3; it stands at character 0",
        ),
        (
            "data[0].paragraphs[0].qas[1].answers[0] (id q2)",
            "answer 'Wasps' is not in the passage at character 0",
        ),
        (
            "data[0].paragraphs[0].qas[2].answers[0] (id q3)",
            "answer '.' is not in the passage at character -1; it stands at character 10",
        ),
    ]


def test_repeated_ids_and_titles_name_both_places(tmp_path: Path) -> None:
    found = faults(write(tmp_path, article("A", CONTEXT, qa(), qa()), article("A", "Bees.", qa())))
    assert found == [
        (
            "data[1]",
            "title 'A' stands at data[0] too; a document has one title: "
            "merge the two or rename one",
        ),
        (
            "data[0].paragraphs[0].qas[1] (id q1)",
            "id 'q1' stands at data[0].paragraphs[0].qas[0] too; ids must be unique",
        ),
        (
            "data[1].paragraphs[0].qas[0] (id q1)",
            "id 'q1' stands at data[0].paragraphs[0].qas[0] too; ids must be unique",
        ),
    ]


def test_every_fault_of_a_file_is_found(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        article("", CONTEXT),
        article("B", " \n"),
        article("C", CONTEXT, qa("c", "  ")),
        {"title": "D", "paragraphs": "none"},
        {"title": "E", "paragraphs": []},
        {"title": "F"},
        "G",
        article("H", CONTEXT, {"id": 7, "question": None, "answers": [{"text": "Bees"}]}),
        article("I", CONTEXT, {"id": "i", "question": "Why?", "answers": []}),
        article("J", CONTEXT, {"id": "j", "question": "\ud800?", "answers": [1]}),
        article("K", CONTEXT, {**qa("k"), "answers": [{"text": "Bees", "answer_start": True}]}),
        {"title": "L", "paragraphs": [{"qas": []}]},
    )
    assert faults(path) == [
        ("data[0].title", "title is empty"),
        ("data[1].paragraphs[0].context (title 'B')", "context is empty"),
        ("data[2].paragraphs[0].qas[0].question (id c)", "question is empty"),
        ("data[3].paragraphs (title 'D')", "is text, expected a list"),
        ("data[4] (title 'E')", "has no paragraphs"),
        ("data[5] (title 'F')", "has no 'paragraphs'"),
        ("data[6]", "is text, expected an object with 'title'"),
        ("data[6]", "is text, expected an object with 'paragraphs'"),
        ("data[7].paragraphs[0].qas[0].id (title 'H')", "is a number, expected text"),
        ("data[7].paragraphs[0].qas[0].question (title 'H')", "is null, expected text"),
        ("data[7].paragraphs[0].qas[0].answers[0] (title 'H')", "has no 'answer_start'"),
        ("data[8].paragraphs[0].qas[0] (id i)", "has no answers"),
        (
            "data[9].paragraphs[0].qas[0].question (id j)",
            "question holds half of a surrogate pair, which is no character",
        ),
        (
            "data[9].paragraphs[0].qas[0].answers[0] (id j)",
            "is a number, expected an object with 'text'",
        ),
        (
            "data[9].paragraphs[0].qas[0].answers[0] (id j)",
            "is a number, expected an object with 'answer_start'",
        ),
        (
            "data[10].paragraphs[0].qas[0].answers[0].answer_start (id k)",
            "is true or false, expected a whole number",
        ),
        ("data[11].paragraphs[0] (title 'L')", "has no 'context'"),
    ]


@pytest.mark.parametrize(
    ("content", "record", "message"),
    [
        (b'{"data": [{"title": "A"', "line 1, column 24", "cut short"),
        (b'{"data": [{"title": "A', "line 1, column 21", "cut short"),
        (b"", "line 1, column 1", "cut short"),
        (b'{"data":\n [1,, 2]}', "line 2, column 5", "is not valid JSON"),
        (b"[" * 100_000, "", "is not JSON that can be read"),
        (b'{"data": "\xff"}', "byte 10", "is not UTF-8 text"),
        (b"[]", "", "is not of the SQuAD form"),
        (b'{"data": {}}', "data", "is an object, expected a list"),
        (b'{"data": []}', "", "has no articles"),
    ],
)
def test_what_is_no_squad_form_is_one_fault(
    tmp_path: Path, content: bytes, record: str, message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    found = faults(path)
    assert found[0][0] == record
    assert message in found[0][1]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, article())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_squad(path).questions) == 1


def test_an_unknown_language_code_is_a_fault(tmp_path: Path) -> None:
    ((record, message),) = faults(write(tmp_path, article(), name="bees.qq.json"))
    assert record == ""
    assert "'qq', which is no code of ISO 639-1" in message


def write_marked(path: Path, breaks: Any) -> Path:
    qa = {"id": "a", "question": "Who?", "answers": [{"text": "Bees", "answer_start": 0}]}
    paragraph = {"context": "Bees dance. So do I.", "qas": [qa], "sentence_breaks": breaks}
    content = {"data": [{"title": "Bees", "paragraphs": [paragraph]}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_marked_sentences_are_kept(tmp_path: Path) -> None:
    corpus = read_squad(write_marked(tmp_path / "marked.en.json", [[0, 11], [12, 20]]))
    assert corpus.sentence_breaks == {"Bees#0": ((0, 11), (12, 20))}


@pytest.mark.parametrize(
    ("breaks", "entry"),
    [
        ([[0, 11], [10, 20]], 1),
        ([[0, 11], [12, 21]], 1),
        ([[-1, 11]], 0),
        ([[5, 5]], 0),
        ([[0, "11"]], 0),
        ([[0, True]], 0),
        ([[0]], 0),
        ("0-11", 0),
    ],
)
def test_marks_that_do_not_fit_are_refused(tmp_path: Path, breaks: Any, entry: int) -> None:
    path = write_marked(tmp_path / "marked.en.json", breaks)
    with pytest.raises(CorpusError, match=rf"sentence_breaks .*: entry {entry} does not.*has 20"):
        read_squad(path)
