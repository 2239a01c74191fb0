from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.corpora.model import Corpus
from clrelkt.errors import ClrelktError, CorpusError, DataError
from clrelkt.mining.sets import read_mining_set, sets_of_corpus
from clrelkt.mining.vectors import read_vectors

PASSAGES = [
    {"id": "a", "text": "bees make honey", "document": "hive"},
    {"id": "b", "text": "a queen lays eggs", "document": "hive"},
    {"id": "c", "text": "iron rusts"},
]
QUESTIONS: list[Any] = [
    {"id": "q", "text": "who makes honey?", "positive_ids": ["a"]},
    {"id": "r", "text": "what rusts or lays?", "positive_ids": ["c", "b", "c"]},
]


def write(folder: Path, questions: Sequence[Any], passages: Sequence[Any]) -> tuple[Path, Path]:
    files = folder / "questions.jsonl", folder / "passages.jsonl"
    for file, records in zip(files, (questions, passages), strict=True):
        lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return files


def test_a_question_has_a_row_for_each_answer(tmp_path: Path) -> None:
    found = read_mining_set(*write(tmp_path, QUESTIONS, PASSAGES))
    assert found.question_ids == ("q", "r", "r")
    assert found.golds.tolist() == [[0, 0], [2, 1], [1, 2]]
    assert found.candidate_ids == ("a", "b", "c")
    assert found.document.tolist() == [0, 0, 1]
    assert found.question_texts[2] == "what rusts or lays?"


def test_the_digest_depends_on_everything(tmp_path: Path) -> None:
    found = read_mining_set(*write(tmp_path, QUESTIONS, PASSAGES))
    others = [
        replace(found, question_ids=("q", "r", "s")),
        replace(found, question_texts=("q", "r", "r")),
        replace(found, golds=found.golds[::-1]),
        replace(found, candidate_texts=("bees make hone", "ya queen lays eggs", "iron rusts")),
        replace(found, document=np.array([0, 1, 1])),
        replace(found, queries=("x", "y", "z")),
    ]
    assert len({one.digest() for one in (found, *others)}) == 7
    assert found.digest() == read_mining_set(*write(tmp_path, QUESTIONS, PASSAGES)).digest()


@pytest.mark.parametrize(
    ("questions", "passages", "message"),
    [
        (QUESTIONS, [*PASSAGES, PASSAGES[0]], r"line 4 \(a\): passage id 'a' is in line 1 already"),
        ([*QUESTIONS, QUESTIONS[0]], PASSAGES, r"line 3 \(q\): question id 'q' is in line 1"),
        ([QUESTIONS[0] | {"positive_ids": ["z"]}], PASSAGES, "its answer 'z' is no passage of"),
        ([QUESTIONS[0] | {"positive_ids": []}], PASSAGES, "names no answer"),
        ([{"id": "q", "text": "x"}], PASSAGES, "has no 'positive_ids'"),
        ([QUESTIONS[0] | {"text": "  "}], PASSAGES, "question's text is empty"),
        ([{"text": "x", "positive_ids": ["a"]}], PASSAGES, "has no 'id'"),
        (QUESTIONS, [*PASSAGES, '{"id": "d", "te'], r"line 4, column .*not valid JSON"),
        (QUESTIONS, [PASSAGES[0] | {"document": 3}, *PASSAGES[1:]], "is a number, expected text"),
        ([], PASSAGES, r"questions\.jsonl: holds no record"),
    ],
)
def test_faults_are_named_with_file_and_line(
    tmp_path: Path, questions: list[Any], passages: list[Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_mining_set(*write(tmp_path, questions, passages))
    faults = caught.value.faults if isinstance(caught.value, CorpusError) else [caught.value]
    assert any(re.search(message, str(fault)) for fault in faults), faults


def test_a_corpus_has_a_set_for_each_pool(corpus: Corpus) -> None:
    english, german = sets_of_corpus(corpus, "passage")
    assert english.question_ids == ("en:0", "en:1", "ru:1")
    assert german.question_ids == ("de:0", "de:1", "de:2")
    assert len(english.candidate_ids) == 8
    assert len(german.candidate_ids) == 6
    assert [german.candidate_ids[gold] for gold in german.golds[:, 0]] == [
        "bees#0",
        "bears#1",
        "copy#1",
    ]
    asked = sets_of_corpus(corpus, "document", in_document_language=True)[1]
    assert asked.question_ids == ("de:0", "de:1")
    assert asked.queries[0] == "who makes honey in hives"
    assert asked.question_texts[0] == "wer macht Honig"
    stray = [q for q in corpus.questions if q.id == "de:2"]
    with pytest.raises(DataError, match="no question to mine for in 'en'"):
        sets_of_corpus(corpus, "passage", asked=stray, in_document_language=True)


def test_vectors_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "v.npy"
    np.save(file, np.eye(3, dtype=np.float32))
    assert isinstance(read_vectors(file, 3, "passages"), np.memmap)
    np.save(file, np.eye(3) * [[2.0], [0.5], [7.0]])
    assert np.array_equal(read_vectors(file, 3, "passages"), np.eye(3, dtype=np.float32))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.eye(2, dtype=np.float32), "holds 2 vectors for 3 passages"),
        (np.ones(3), r"array of shape \(3,\)"),
        (np.ones((3, 2), np.int64), "floating-point numbers"),
        (np.array([[1.0, 0], [np.nan, 1], [1, 1]]), "row 1 holds NaN or infinity"),
        (np.array([[1.0, 0], [1, 1], [0, 0]]), "row 2 is zero"),
        (None, "cannot be read as a NumPy file"),
    ],
)
def test_vectors_that_cannot_be_used(
    tmp_path: Path, vectors: np.ndarray | None, message: str
) -> None:
    file = tmp_path / "v.npy"
    if vectors is None:
        file.write_bytes(b"\x93NUMPY cut short")
    else:
        np.save(file, vectors)
    with pytest.raises(ClrelktError, match=message):
        read_vectors(file, 3, "passages")
