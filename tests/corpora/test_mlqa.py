from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora.check import check_path, inspect_path
from clrelkt.corpora.mlqa import read_mlqa
from clrelkt.corpora.splits import split_corpus, take_split
from clrelkt.errors import DataError

POOLS = {"ar": 238, "de": 281, "en": 520, "es": 259, "hi": 217, "vi": 228, "zh": 244}
QUESTIONS = {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504}


def content(prefix: str, ids: list[str], title: str = "Bees") -> dict[str, Any]:
    def qa(id_: str) -> dict[str, Any]:
        return {
            "id": id_,
            "question": f"{prefix} {id_}?",
            "answers": [{"text": "Bees", "answer_start": 0}],
        }

    return {
        "data": [
            {"title": title, "paragraphs": [{"context": f"Bees {i}.", "qas": [qa(i)]}]}
            if len(ids) == 1
            else {
                "title": title,
                "paragraphs": [{"context": f"Bees {i}.", "qas": [qa(i)]} for i in ids],
            }
            for i in ids[:1]
        ]
    }


def write(folder: Path, kind: str, language: str, ids: list[str], title: str = "Bees") -> Path:
    (folder / kind).mkdir(exist_ok=True)
    path = folder / kind / f"{kind}-context-en-question-{language}.json"
    path.write_text(json.dumps(content(language, ids, title)), encoding="utf-8")
    return path


def test_counts_and_pools_of_the_real_files(data_folder: Path) -> None:
    corpus = read_mlqa(data_folder / "mlqa")
    assert Counter(q.language for q in corpus.questions) == QUESTIONS
    assert {code: len(ids) for code, ids in corpus.pools.items()} == POOLS
    assert len(corpus.documents) == sum(POOLS.values())
    for question in corpus.questions:
        assert question.document_id in corpus.pools[question.language]
        passage = corpus.passage_by_id[question.passage_id or ""]
        assert passage.text.startswith(question.answers[0].text, question.answers[0].start or 0)
        assert corpus.translation(question, "en") is not None
    assert take_split(corpus, "test").questions == corpus.questions
    with pytest.raises(DataError, match=r"no training questions here: put MLQA's test files into"):
        take_split(corpus, "train")


def test_all_49_real_files_fit_together(data_folder: Path) -> None:
    inspection = inspect_path(data_folder / "mlqa")
    assert inspection.faults == ()
    assert inspection.questions == QUESTIONS


def test_test_files_are_there_to_train_with_over_pools_of_their_own(tmp_path: Path) -> None:
    fit = [f"t{n}" for n in range(10)]
    for language in ("de", "en"):
        write(tmp_path, "dev", language, ["d1", "d2"])
        write(tmp_path, "test", language, fit)
    corpus = read_mlqa(tmp_path)
    assert corpus.pools["de"] == ("de:Bees", "de:test:Bees")
    splits = split_corpus(corpus, seed=3)
    assert [len(part.questions) for part in (splits.train, splits.dev, splits.test)] == [16, 4, 4]
    assert {q.parallel_id for q in splits.test.questions} == {"d1", "d2"}
    assert splits.test.pools == {"de": ("de:Bees",), "en": ("en:Bees",)}
    assert splits.train.pools == splits.dev.pools
    assert splits.train.pools == {"de": ("de:test:Bees",), "en": ("en:test:Bees",)}
    for question in splits.train.questions:
        assert question.document_id in splits.train.pools[question.language]


def test_the_folder_of_the_files_itself_is_read_too(tmp_path: Path) -> None:
    write(tmp_path, "dev", "de", ["d1"])
    assert [q.id for q in read_mlqa(tmp_path / "dev").questions] == ["de:d1"]


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    write(tmp_path, "dev", "en", ["d1", "d2"])
    write(tmp_path, "dev", "de", ["d1", "d3"])
    write(tmp_path, "dev", "es", ["d1"], title="Wasps")
    assert [(Path(f.file).name[-7:-5], f.message) for f in check_path(tmp_path)] == [
        (
            "de",
            "its gold passage is missing: dev-context-en-question-en.json has no such question",
        ),
        ("es", "is a question of 'Wasps' here, of 'Bees' in dev-context-en-question-en.json"),
    ]


def test_one_damaged_real_file_is_found(data_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder / "mlqa/dev", tmp_path / "dev", copy_function=shutil.copyfile)
    path = tmp_path / "dev/dev-context-zh-question-vi.json"
    path.write_text(path.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    (fault,) = check_path(tmp_path)
    assert fault.file == str(path)
    assert "cut short" in fault.message
