from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora import check_path, load_corpus, split_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import CorpusError
from clrelkt.evaluation import evaluate


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "animals.de"
    (folder / "qrels").mkdir(parents=True)
    write_lines(
        folder / "corpus.jsonl",
        [
            {"_id": "d1", "title": "Bees", "text": "Bees make honey and live in hives."},
            {"_id": "d2", "title": "", "text": "Whales are the largest animals in the sea."},
            {"_id": "d3", "text": "Camels walk through deserts for days without water."},
        ],
    )
    write_lines(
        folder / "queries.jsonl",
        [
            {"_id": "q1", "text": "Welche Tiere machen Honig?"},
            {"_id": "q2", "text": "Which animal is the largest?", "metadata": {"lang": "en"}},
            {"_id": "q3", "text": "Nobody has judged this.", "language": "en"},
        ],
    )
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n", "utf-8")
    test = "query-id\tcorpus-id\tscore\nq1\td2\t0\nq1\td3\t1\nq1\td1\t2\n"
    (folder / "qrels/test.tsv").write_text(test, "utf-8")
    return folder


def test_a_folder_is_a_corpus(folder: Path) -> None:
    corpus = load_corpus(folder)
    assert [(document.id, document.title) for document in corpus.documents] == [
        ("d1", "Bees"),
        ("d2", ""),
        ("d3", ""),
    ]
    asked = {question.id: question for question in corpus.questions}
    assert set(asked) == {"en:q2", "de:q1"}
    # The document that is judged the most relevant.
    assert (asked["de:q1"].document_id, asked["de:q1"].passage_id) == ("d1", "d1#0")
    splits = split_corpus(corpus)
    assert [question.id for question in splits.test.questions] == ["de:q1"]
    assert check_path(folder) == []


def test_an_encoder_is_evaluated_on_it(folder: Path, muse: MuseEncoder) -> None:
    results = evaluate(muse, load_corpus(folder))
    assert results.languages["de"].hit_rate_at_1 == 1.0


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("corpus.jsonl", '"_id": "d2"', '"_id": "d1"', r"line 2: _id 'd1' stands more than once"),
        ("corpus.jsonl", '"text": "Whales', '"txt": "Whales', r"line 2 \(_id d2\): has no 'text'"),
        ("queries.jsonl", '"lang": "en"', '"lang": "xx"', r"line 2\.metadata\.lang .*'xx' is no"),
        ("qrels/test.tsv", "q1\td1\t2", "q1\td9\t2", r"line 4: corpus.jsonl has no document 'd9'"),
        ("qrels/test.tsv", "q1\td1\t2", "q9\td1\t2", r"line 4: queries.jsonl has no query 'q9'"),
        ("qrels/test.tsv", "q1\td1\t2", "q1 d1 2", r"line 4: 'q1 d1 2': expected a query's id"),
    ],
)
def test_faults_have_file_and_record(
    folder: Path, file: str, old: str, new: str, message: str
) -> None:
    path = folder / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(CorpusError, match=message):
        load_corpus(folder)
    assert str(path) in str(check_path(folder)[0])
