"""What pictures of a run are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clrelkt.corpora import Corpus, take_split
from clrelkt.encoders import load_encoder
from clrelkt.errors import TrainingError
from clrelkt.training import Recipe, Run
from clrelkt.training.portrait import (
    Portrait,
    portrayed_encoders,
    read_portrait,
    write_portrait,
)


@pytest.fixture
def portrait(finished_run: Run) -> Portrait:
    found = read_portrait(finished_run.folder)
    assert found is not None
    return found


def test_its_numbers_are_those_of_the_results(finished_run: Run, portrait: Portrait) -> None:
    assert portrait.encoders == ("zero-shot", "student")
    for name in portrait.encoders:
        results = finished_run.results[name]
        assert portrait.share[name] == results.mean.hit_rate_at_1
        for text in portrait.texts:
            if text.ranks is not None:
                row = results.languages[text.language]
                assert row.ranks is not None
                assert text.ranks[name] == row.ranks[row.parallel_ids.index(text.parallel_id)]
    asked = sum(row.questions for row in finished_run.results["student"].languages.values())
    assert portrait.questions == asked == sum(text.is_question for text in portrait.texts)


def test_its_vectors_are_those_of_the_encoders(
    finished_run: Run, portrait: Portrait, tiny_encoder_folder: Path
) -> None:
    folders = {
        "zero-shot": tiny_encoder_folder,
        "student": finished_run.folder / "encoders" / "student",
    }
    questions = [text.text for text in portrait.texts if text.is_question]
    for name, folder in folders.items():
        vectors = load_encoder(folder).encode(questions, "question")
        np.testing.assert_allclose(portrait.vectors[name][: len(questions)], vectors, atol=1e-3)
    first, second = portrait.vectors.values()
    assert not np.allclose(first, second)


def test_questions_are_those_of_the_test_split(tiny_corpus: Corpus, portrait: Portrait) -> None:
    test = {question.text for question in take_split(tiny_corpus, "test").questions}
    assert {text.text for text in portrait.texts if text.is_question} == test


def test_the_worst_are_those_that_rank_last(finished_run: Run, portrait: Portrait) -> None:
    ranks = [
        int(rank)
        for row in finished_run.results["student"].languages.values()
        for rank in (() if row.ranks is None else row.ranks)
    ]
    last = sorted((rank for rank in ranks if rank > 1), reverse=True)[:10]
    assert [worst.answer.gold_rank for worst in portrait.worst] == last
    for worst in portrait.worst:
        assert worst.answer.hit_id != worst.answer.gold_id
        assert bool(worst.meant) == (worst.answer.language != "en")


def test_written_and_read(portrait: Portrait, tmp_path: Path) -> None:
    write_portrait(tmp_path, portrait)
    again = read_portrait(tmp_path)
    assert again is not None
    assert again.to_json() == portrait.to_json()
    for name in portrait.encoders:
        assert again.vectors[name].tobytes() == portrait.vectors[name].tobytes()
    assert read_portrait(tmp_path / "nowhere") is None


def test_a_newer_format_is_refused(finished_run: Run, tmp_path: Path) -> None:
    for path in finished_run.folder.glob("portrait.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "portrait.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(record | {"format": 99}), "utf-8")
    with pytest.raises(TrainingError, match="newer clrelkt"):
        read_portrait(tmp_path)
    path.write_text(json.dumps(record | {"texts": record["texts"][1:]}), "utf-8")
    with pytest.raises(TrainingError, match="texts, but other vectors"):
        read_portrait(tmp_path)


def test_the_last_stages_are_portrayed(tiny_recipe: Recipe) -> None:
    assert portrayed_encoders(tiny_recipe) == ("zero-shot", "student")
    assert portrayed_encoders(tiny_recipe.up_to("teacher")) == ("zero-shot", "teacher")
