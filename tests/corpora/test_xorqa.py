from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from clrelkt.corpora.check import check_path, inspect_path
from clrelkt.corpora.splits import split_corpus
from clrelkt.corpora.xorqa import read_xor


def line(id_: str, question: str, lang: str = "ko", **more: Any) -> dict[str, Any]:
    return {"id": id_, "question": question, "answers": ["yes", "yes"], "lang": lang, **more}


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_pair(folder: Path, language: str, own: str, english: str) -> None:
    (folder / f"{language}-en").mkdir()
    (folder / f"{language}-en/{language}.txt").write_text(own, encoding="utf-8")
    (folder / f"{language}-en/en.txt").write_text(english, encoding="utf-8")


def gold(id_: str, question: str, context: str, lang: str = "ko") -> dict[str, Any]:
    answers = [{"text": context[:4], "answer_start": 0}]
    qa = {"id": id_, "question": question, "answers": answers, "lang": lang}
    return {"title": context[0], "paragraphs": [{"context": context, "qas": [qa]}]}


def test_the_real_files(data_folder: Path) -> None:
    corpus = read_xor(data_folder / "xorqa")
    assert corpus.fixed_split is not None
    parts = corpus.fixed_split.parts
    asked = [q for q in corpus.questions if q.language != "en"]
    english = {q.parallel_id for q in corpus.questions if q.language == "en"}
    assert len(asked) == 15_250 + 2_110
    assert Counter(parts[q.parallel_id] for q in asked)["test"] == 2_110
    assert sum(parts[q.parallel_id] == "test" for q in asked if q.parallel_id in english) == 42
    assert sum(parts[q.parallel_id] != "test" for q in asked if q.parallel_id in english) == 15_250
    assert {q.document_id for q in corpus.questions} == {None}
    assert corpus.languages == ("en", "ar", "bn", "fi", "ja", "ko", "ru", "te")
    splits = split_corpus(corpus)
    tested = {" ".join(q.text.split()) for q in splits.test.questions if q.language != "en"}
    for side in (splits.train, splits.dev):
        trained = {" ".join(q.text.split()) for q in side.questions if q.language != "en"}
        assert not trained & tested
    inspection = inspect_path(data_folder / "xorqa")
    assert inspection.faults == ()
    assert sum(inspection.questions.values()) == 15_250 + 2_110


def test_translations_are_joined_by_text_whatever_its_white_space(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "xor_train_retrieve_eng_span.jsonl",
        line("1", "어디  있나 ?", " ko"),
        line("2", "누구?"),
        line("3", "그대로?"),
    )
    write_lines(tmp_path / "xor_dev_retrieve_eng_span.jsonl", line("4", "그대로"))
    write_pair(tmp_path, "ko", "누구?\n어디 있나 ?\n그대로?\n", "Who  is it?\nWhere?\n\n")
    corpus = read_xor(tmp_path)
    assert [(q.id, q.parallel_id, q.text) for q in corpus.questions] == [
        ("ko:1", "1", "어디  있나 ?"),
        ("en:1", "1", "Where?"),
        ("ko:2", "2", "누구?"),
        ("en:2", "2", "Who is it?"),
        ("ko:3", "3", "그대로?"),
        ("ko:4", "4", "그대로"),
    ]
    assert [answer.text for answer in corpus.questions[0].answers] == ["yes"]
    assert corpus.fixed_split is not None
    assert corpus.fixed_split.parts == {"1": "fit", "2": "fit", "3": "unused", "4": "test"}


def test_gold_paragraphs_give_documents(tmp_path: Path) -> None:
    write_lines(tmp_path / "xor_train_retrieve_eng_span.jsonl", line("1", "A?"), line("9", "Z?"))
    train = [
        gold("1", "A?", "Alpha is."),
        gold("2", "B?", "Another."),
        gold("1", "A?", "Alpha is."),
    ]
    dev = [gold("3", "C?", "Chess.", " ja")]
    for kind, data in (("train", train), ("dev", dev)):
        path = tmp_path / f"gp_squad_{kind}_data.json"
        path.write_text(json.dumps({"data": data}), encoding="utf-8")
    corpus = read_xor(tmp_path)
    assert [(d.id, [p.text for p in d.passages]) for d in corpus.documents] == [
        ("A", ["Alpha is.", "Another."]),
        ("C", ["Chess."]),
    ]
    assert [(q.id, q.passage_id) for q in corpus.questions] == [
        ("ko:1", "A#0"),
        ("ko:2", "A#1"),
        ("ja:3", "C#0"),
    ]
    assert check_path(tmp_path) == []
    assert inspect_path(tmp_path).questions == {"ja": 1, "ko": 3}


def test_every_fault_is_found(tmp_path: Path) -> None:
    train = write_lines(
        tmp_path / "xor_train_retrieve_eng_span.jsonl",
        line("1", " "),
        line("2", "A?", "xx"),
        {"id": "3", "question": "B?", "lang": "ja"},
        line("4", "C?"),
        line("4", "D?"),
        [],
    )
    with train.open("a", encoding="utf-8") as file:
        file.write('{"id": "5", "question')
    write_lines(tmp_path / "xor_dev_retrieve_eng_span.jsonl", line("4", "E?"))
    write_pair(tmp_path, "ko", "a\nb\n", "a\n")
    assert [(Path(f.file).name[:9], f.record, f.message) for f in check_path(tmp_path)] == [
        ("xor_train", "line 1.question (id 1)", "question is empty"),
        ("xor_train", "line 2 (id 2)", "language 'xx' is no code of ISO 639-1"),
        ("xor_train", "line 3 (id 3)", "has no 'answers'"),
        *(
            ("xor_train", "line 6", f"is a list, expected an object with {key!r}")
            for key in ("id", "question", "answers", "lang")
        ),
        (
            "xor_train",
            "line 7, column 13",
            "is not valid JSON: Unterminated string starting at; "
            "the file seems to be cut short, fetch it again",
        ),
        ("xor_train", "line 5 (id 4)", "id '4' stands at line 4 too"),
        (
            "xor_dev_r",
            "line 1 (id 4)",
            "id '4' stands at xor_train_retrieve_eng_span.jsonl, line 4, too",
        ),
        (
            "ko.txt",
            "",
            "has 3 lines, en.txt beside it 2; line n of one must translate line n of the other",
        ),
    ]
