from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from clrelkt.corpora import check_path, load_corpus, split_corpus
from clrelkt.errors import CorpusError

DOCUMENTS = [
    ("doc_id", "doc", "title"),
    ("0", "Bees.\n\nThey hum.", "Bees"),
    ("1", "Tea.", "T"),
]


def write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "xquad"
    for code, word in (("de", "Wer"), ("th", "ใคร")):
        write(folder / f"xquad_doc_en-{code}.csv", DOCUMENTS)
        rows = [("doc_id", "question"), ("1", f"{word}, 1?"), ("0", f'{word} "2", bitte?')]
        write(folder / f"xquad_question_en-{code}.csv", rows)
    return folder


def test_tables_of_several_languages_share_documents_and_rows(folder: Path) -> None:
    corpus = load_corpus(folder)
    assert [[p.text for p in document.passages] for document in corpus.documents] == [
        ["Bees.", "They hum."],
        ["Tea."],
    ]
    assert corpus.languages == ("de", "th")
    first, second = corpus.questions_in("de")
    assert (first.document_id, first.passage_id) == ("1", "1#0")
    assert (second.text, second.document_id, second.passage_id) == ('Wer "2", bitte?', "0", None)
    translated = corpus.translation(second, "th")
    assert translated is not None
    assert translated.text == 'ใคร "2", bitte?'
    assert check_path(folder) == []


def test_rows_that_differ_are_no_translations(folder: Path) -> None:
    write(folder / "xquad_question_en-th.csv", [("doc_id", "question"), ("1", "ใคร?")])
    corpus = load_corpus(folder)
    assert corpus.translation(corpus.questions_in("de")[0], "th") is None


def test_parts_and_documents_of_their_own(folder: Path, tmp_path: Path) -> None:
    for kind in ("train", "dev"):
        (tmp_path / "both" / kind).mkdir(parents=True)
        for path in folder.iterdir():
            (tmp_path / "both" / kind / path.name).write_bytes(path.read_bytes())
    write(tmp_path / "both/dev/xquad_doc_en-th.csv", [*DOCUMENTS[:2], ("1", "Coffee.", "C")])
    corpus = load_corpus(tmp_path / "both")
    splits = split_corpus(corpus)
    assert {q.document_id for q in splits.test.questions_in("th")} == {"test:th:0", "test:th:1"}
    assert [document.text for document in splits.test.pool("th")] == [
        "Bees. They hum.",
        "Coffee.",
    ]
    assert [document.text for document in splits.test.pool("de")] == ["Bees. They hum.", "Tea."]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("doc_id", "text"), ("1", "?")],
            r"en-de\.csv: line 1: has no column 'question'",
        ),
        ([("doc_id", "question"), ("1", " ")], r"question_en-de\.csv: line 2: question is empty"),
        ([("doc_id", "question"), ("7", "Wer?")], r"question 0 in de: its document '7' is in no"),
    ],
)
def test_faults_have_file_and_record(
    folder: Path, rows: list[tuple[str, ...]], message: str
) -> None:
    write(folder / "xquad_question_en-de.csv", rows)
    with pytest.raises(CorpusError, match=message):
        load_corpus(folder)
    assert check_path(folder)
