from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from clrelkt.corpora.check import inspect_path
from clrelkt.corpora.xquad import read_xquad
from clrelkt.errors import CorpusError

LANGUAGES = ("en", "ar", "de", "el", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")


def test_all_languages_share_documents_and_ids(data_folder: Path) -> None:
    corpus = read_xquad(data_folder / "xquad")
    assert corpus.languages == LANGUAGES
    assert Counter(q.language for q in corpus.questions) == dict.fromkeys(LANGUAGES, 1190)
    assert (len(corpus.documents), len(corpus.passage_by_id)) == (48, 240)
    assert len({q.id for q in corpus.questions}) == 12 * 1190
    assert len({q.parallel_id for q in corpus.questions}) == 1190
    for question in corpus.questions:
        passage = corpus.passage_by_id[question.passage_id or ""]
        assert passage.document_id == question.document_id
        for answer in question.answers:
            assert answer.start is not None
            assert passage.text.startswith(answer.text, answer.start)


def test_the_real_files_have_no_fault(data_folder: Path) -> None:
    inspection = inspect_path(data_folder / "xquad")
    assert inspection.faults == ()
    assert inspection.questions == dict.fromkeys(sorted(LANGUAGES), 1190)
    assert inspect_path(data_folder / "xquad_r").faults == ()


def test_a_language_that_lacks_a_question_is_refused(data_folder: Path, tmp_path: Path) -> None:
    for code in ("en", "de"):
        shutil.copyfile(data_folder / f"xquad/xquad.{code}.json", tmp_path / f"xquad.{code}.json")
    path = tmp_path / "xquad.de.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    lost = content["data"][5]["paragraphs"][2]["qas"].pop(1)["id"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        read_xquad(tmp_path)
    ((fault),) = caught.value.faults
    assert (fault.file, fault.record) == (str(path), f"id {lost}")
