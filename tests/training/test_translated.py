"""The transfer stage on questions that only a machine has translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora import load_corpus
from clrelkt.corpora.translations import translations_beside
from clrelkt.errors import TrainingError
from clrelkt.training import BASELINE, RunSettings, train
from clrelkt.training.recipe import recipe_from_json


@pytest.fixture
def german_file(tiny_corpus_folder: Path, tmp_path: Path) -> Path:
    """The tiny corpus with its German questions alone."""
    texts = {
        entry["id"]: entry["question"]
        for article in read(tiny_corpus_folder / "tiny.de.json")["data"]
        for paragraph in article["paragraphs"]
        for entry in paragraph["qas"]
    }
    english = read(tiny_corpus_folder / "tiny.en.json")
    for article in english["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                entry["question"] = texts[entry["id"]]
    path = tmp_path / "tiny.context-en-question-de.json"
    path.write_text(json.dumps(english), encoding="utf-8")
    return path


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_translations_are_what_the_student_learns_from(
    german_file: Path, tiny_corpus_folder: Path, tiny_table: dict[str, Any], tmp_path: Path
) -> None:
    tiny_table["corpus"] = str(german_file)
    tiny_table["stages"] = tiny_table["stages"][2:]
    del tiny_table["stages"][0]["start"]
    recipe = recipe_from_json(tiny_table)
    settings = RunSettings(tmp_path / "without", save_form="whole", progress=False)
    with pytest.raises(TrainingError, match="no training question has one"):
        train(recipe, settings)

    parallel = load_corpus(tiny_corpus_folder)
    with translations_beside(german_file).open("w", encoding="utf-8") as file:
        for question in parallel.questions_in("de"):
            translation = parallel.translation(question, "en")
            assert translation is not None
            line = {
                "id": question.id,
                "language": "de",
                "text": question.text,
                "target": "en",
                "translation": translation.text,
                "flaw": None,
                "model": {"name": "someone"},
            }
            file.write(json.dumps(line) + "\n")
    run = train(recipe, RunSettings(tmp_path / "with", save_form="whole", progress=False))
    assert BASELINE in run.results
    # Nothing else differs from training on the translations that people made.
    only_german = tiny_table | {"corpus": str(tiny_corpus_folder), "languages": ["de"]}
    expected = train(
        recipe_from_json(only_german),
        RunSettings(tmp_path / "human", save_form="whole", progress=False),
    )
    for stage, results in run.results.items():
        assert results.languages == expected.results[stage].languages
