from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora import split_corpus
from clrelkt.corpora.check import inspect_path
from clrelkt.corpora.model import Corpus
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


@pytest.fixture(scope="session")
def twins(data_folder: Path) -> tuple[Corpus, Corpus]:
    """XQuAD and XQuAD-R."""
    return read_xquad(data_folder / "xquad"), read_xquad(data_folder / "xquad_r", name="xquad-r")


@pytest.mark.parametrize("by", ["question", "document"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_splits_both_twins_alike(twins: tuple[Corpus, Corpus], by: Any, seed: int) -> None:
    plain, marked = (split_corpus(corpus, by=by, seed=seed) for corpus in twins)
    for side in ("train", "dev", "test"):
        ids = [
            {q.parallel_id for q in getattr(splits, side).questions} for splits in (plain, marked)
        ]
        assert ids[0] == ids[1]
        assert ids[0]


def test_only_the_twin_has_marked_sentences(
    data_folder: Path, twins: tuple[Corpus, Corpus]
) -> None:
    plain, marked = twins
    assert plain.sentence_breaks == {}
    assert set(marked.sentence_breaks) == set(marked.passage_by_id)
    assert sum(map(len, marked.sentence_breaks.values())) == 1180
    content = json.loads((data_folder / "xquad_r/en.json").read_text(encoding="utf-8"))
    for article in content["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            passage_id = f"{article['title']}#{number}"
            text = marked.passage_by_id[passage_id].text
            cut = [text[start:end] for start, end in marked.sentence_breaks[passage_id]]
            assert cut == paragraph["sentences"]


def test_marks_go_with_their_documents(twins: tuple[Corpus, Corpus]) -> None:
    marked = twins[1]
    fewer = marked.without_documents([marked.documents[0].id])
    assert set(fewer.sentence_breaks) == set(fewer.passage_by_id)
