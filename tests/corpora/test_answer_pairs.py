from __future__ import annotations

import json
from pathlib import Path

import pytest

from clrelkt.corpora.answer_pairs import read_answer_pairs
from clrelkt.errors import CorpusError, DataError


def test_lines_are_joined_and_made_plain(tmp_path: Path) -> None:
    (tmp_path / "a.question").write_text("Who ( if any ) came ?\nWhose is it ?\n", "utf-8")
    (tmp_path / "a.context").write_text(
        "Nobody , he said , \" came back \" .\nIt is Anna 's house ; it was n't sold .\n", "utf-8"
    )
    pairs = read_answer_pairs(tmp_path)
    assert pairs.questions == ("Who (if any) came?", "Whose is it?")
    assert pairs.passages == (
        'Nobody, he said, "came back".',
        "It is Anna's house; it wasn't sold.",
    )


def test_sentences_with_a_question_each_are_pairs_too(tmp_path: Path) -> None:
    (tmp_path / "b-questions.txt").write_text("who came ?\n", "utf-8")
    (tmp_path / "b-sentences.txt").write_text("`` i did , '' said anna . \n", "utf-8")
    (tmp_path / "a.question").write_text("Which?\n", "utf-8")
    (tmp_path / "a.context").write_text("Tea.\n", "utf-8")
    pairs = read_answer_pairs(tmp_path)
    assert pairs.questions == ("Which?", "who came?")
    assert pairs.passages == ("Tea.", '"i did," said anna.')
    assert read_answer_pairs(tmp_path / "b").questions == ("who came?",)
    with pytest.raises(DataError, match=r"no files such as c\.question with c\.context"):
        read_answer_pairs(tmp_path / "c")


def test_a_squad_file_gives_each_question_with_its_passage(tmp_path: Path) -> None:
    question = {"id": "q", "question": "Which?", "answers": [{"text": "Tea", "answer_start": 0}]}
    article = {"title": "Tea", "paragraphs": [{"context": "Tea is green.", "qas": [question]}]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"data": [article]}), "utf-8")
    pairs = read_answer_pairs(path)
    assert (pairs.questions, pairs.passages) == (("Which?",), ("Tea is green.",))


def test_faults_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.question").write_text("One?\n\nThree?\n", "utf-8")
    (tmp_path / "a.context").write_text("One.\nTwo.\nThree.\n", "utf-8")
    with pytest.raises(CorpusError, match=r"a\.question.*line 2"):
        read_answer_pairs(tmp_path)


def test_files_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.question").write_text("One?\nTwo?\n", "utf-8")
    (tmp_path / "a.context").write_text("One.\n", "utf-8")
    with pytest.raises(CorpusError, match=r"has 1 lines, a\.question has 2"):
        read_answer_pairs(tmp_path)


def test_a_folder_without_pairs_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no files such as NAME\.question"):
        read_answer_pairs(tmp_path)
    for missing in (tmp_path / "nothing", "nothing at all"):
        with pytest.raises(DataError, match="no such file or folder"):
            read_answer_pairs(missing)


def test_the_part_of_squad_has_pairs_with_passages_and_with_sentences(data_folder: Path) -> None:
    pairs = read_answer_pairs(data_folder / "squad_part")
    assert (len(pairs), len(set(pairs.passages[:4285]))) == (4285 + 11877, 875)
    assert pairs.questions[1] == "What was the Bronx called in the mid-19th century?"
