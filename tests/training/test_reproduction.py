"""What several seeds are put together from, and what their record says of where it came from."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clrelkt.corpora import Corpus, load_corpus, split_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.errors import EncoderError, TrainingError
from clrelkt.evaluation import aggregate
from clrelkt.training import ZERO_SHOT, Recipe, Run, RunSettings
from clrelkt.training.languages import LanguageAddition, LanguageSettings
from clrelkt.training.provenance import count_translated, describe_encoder
from clrelkt.training.recipe import recipe_from_json
from clrelkt.training.reproduction import reproduce


def settings_of(folder: Path, **more: Any) -> RunSettings:
    return RunSettings(folder, save_form="whole", device="cpu", progress=False, **more)


@pytest.fixture
def finished_seed(finished_run: Run, tmp_path: Path) -> RunSettings:
    """A reproduction whose seed 0 is complete."""
    shutil.copytree(finished_run.folder, tmp_path / "out" / "seed-0")
    return settings_of(tmp_path / "out")


@pytest.fixture
def short_recipe(tiny_table: dict[str, Any]) -> Recipe:
    """The warm-up alone, one epoch long."""
    tiny_table["stages"] = tiny_table["stages"][:1]
    tiny_table["stages"][0]["optimisation"]["epochs"] = 1
    return recipe_from_json(tiny_table)


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(read(path) | values), encoding="utf-8")


def test_a_complete_seed_is_read(
    finished_seed: RunSettings, finished_run: Run, tiny_recipe: Recipe
) -> None:
    for jobs in (1, 2):
        found = reproduce(tiny_recipe, finished_seed, [0], jobs=jobs)
        assert found.seeds == (0,)
        for stage, summary in found.summaries().items():
            assert summary == aggregate([finished_run.results[stage]])


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("complete", [True, False])
def test_a_seed_of_another_recipe_is_refused(
    finished_seed: RunSettings, tiny_table: dict[str, Any], jobs: int, complete: bool
) -> None:
    folder = finished_seed.output / "seed-0"
    if not complete:
        (folder / "results.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    tiny_table["stages"][2]["optimisation"]["learning_rate"] = 2e-4
    message = (
        f"{folder}: the run that is there is another one: "
        "recipe.stages[2].optimisation.learning_rate is 0.0001 there and 0.0002 here. Name another "
        "folder with -o, or remove that one"
    )
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        reproduce(recipe_from_json(tiny_table), finished_seed, [0], jobs=jobs)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_differs_is_named(finished_seed: RunSettings, tiny_recipe: Recipe) -> None:
    def message(recipe: Recipe = tiny_recipe, seed: int = 0, split_seed: int = 0) -> str:
        with pytest.raises(TrainingError) as caught:
            reproduce(recipe, replace(finished_seed, split_seed=split_seed), [seed])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "split_seed is 0 there and 3 here" in message(split_seed=3)
    assert "recipe.encoder is " in message(replace(tiny_recipe, encoder="muse"))
    assert "recipe.split_by is 'question' there and 'document' here" in message(
        replace(tiny_recipe, split_by="document")
    )
    assert "recipe.languages is not given there and ['de'] here" in message(
        replace(tiny_recipe, languages=("de",))
    )
    fewer = replace(tiny_recipe, stages=tiny_recipe.stages[:2])
    assert "recipe.stages is [" in message(fewer)
    (finished_seed.output / "seed-0").rename(finished_seed.output / "seed-1")
    assert "seed-1: the run that is there is another one: seed is 0 there and 1 here" in message(
        seed=1
    )


def test_all_seeds_are_looked_at_before_one_is_trained(
    finished_seed: RunSettings, tiny_recipe: Recipe
) -> None:
    (finished_seed.output / "seed-0").rename(finished_seed.output / "seed-1")
    with pytest.raises(TrainingError, match="seed is 0 there and 1 here"):
        reproduce(tiny_recipe, finished_seed, [0, 1])
    assert not (finished_seed.output / "seed-0").exists()


def test_a_seed_that_does_not_say_what_it_is(
    finished_seed: RunSettings, tiny_recipe: Recipe
) -> None:
    path = finished_seed.output / "seed-0" / "run.json"
    change(path, format=2)
    with pytest.raises(TrainingError, match=r"run\.json: format 2, but this clrelkt reads up to 1"):
        reproduce(tiny_recipe, finished_seed, [0])
    change(path, format=1, corpus=None)
    with pytest.raises(TrainingError, match=r"run\.json describes no run"):
        reproduce(tiny_recipe, finished_seed, [0])
    path.unlink()
    with pytest.raises(TrainingError, match=r"run\.json cannot be read"):
        reproduce(tiny_recipe, finished_seed, [0])


def test_a_seed_that_was_not_tested(finished_seed: RunSettings, tiny_recipe: Recipe) -> None:
    change(finished_seed.output / "seed-0" / "results.json", results={})
    with pytest.raises(TrainingError, match=r"seed-0: .*looked at no test question. Name another"):
        reproduce(tiny_recipe, finished_seed, [0])


@pytest.fixture
def grown_folder(tiny_encoder: MuseEncoder, tmp_path: Path) -> Path:
    """An encoder with the record that adding languages leaves."""
    folder = tmp_path / "grown"
    LanguageAddition(tiny_encoder, {}, LanguageSettings(), 5, "muse", 7).save(folder, "whole")
    return folder


def test_what_a_folder_says_of_its_encoder(grown_folder: Path, tiny_encoder_folder: Path) -> None:
    said = describe_encoder(str(grown_folder))
    assert said == {name: read(grown_folder / name) for name in ("clrelkt.json", "languages.json")}
    assert said["languages.json"]["settings"] == LanguageSettings().to_json()
    assert (said["languages.json"]["seed"], said["clrelkt.json"]["kind"]) == (5, "muse")
    assert describe_encoder(str(tiny_encoder_folder)) == {
        "clrelkt.json": read(tiny_encoder_folder / "clrelkt.json")
    }
    (grown_folder / "languages.json").write_text("{")
    with pytest.raises(EncoderError, match=r"languages\.json cannot be read .*save the encoder"):
        describe_encoder(str(grown_folder))


def test_a_published_encoder_says_nothing_more(
    tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_encoder_folder, tmp_path / "muse")
    monkeypatch.chdir(tmp_path)
    assert describe_encoder("muse") is None  # load_encoder takes the published one, too.
    assert describe_encoder("gone") is None


def test_the_record_alone_tells_how_its_encoder_was_made(
    grown_folder: Path, short_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(short_recipe, encoder=str(grown_folder))
    said = describe_encoder(recipe.encoder)
    settings = settings_of(tmp_path / "out")
    record = reproduce(recipe, settings, [0]).to_json("clrelkt reproduce xquad")
    assert record["encoder"] == said
    assert record["command"] == "clrelkt reproduce xquad"
    assert record["recipe"]["encoder"] == str(grown_folder)
    assert read(settings.output / "seed-0" / "run.json")["encoder"] == said
    assert "translated_by" not in record
    shutil.rmtree(grown_folder)
    assert reproduce(recipe, settings, [0]).to_json("clrelkt reproduce xquad") == record


def test_a_run_that_does_not_say_it_yet(finished_seed: RunSettings, tiny_recipe: Recipe) -> None:
    path = finished_seed.output / "seed-0" / "run.json"
    path.write_text(json.dumps({k: v for k, v in read(path).items() if k != "encoder"}))
    record = reproduce(tiny_recipe, finished_seed, [0]).to_json("clrelkt reproduce xquad")
    assert record["encoder"] == describe_encoder(tiny_recipe.encoder)
    change(path, recipe=tiny_recipe.to_json() | {"encoder": "muse"})
    published = reproduce(replace(tiny_recipe, encoder="muse"), finished_seed, [0])
    assert "encoder" not in published.to_json("clrelkt reproduce xquad")


@pytest.fixture
def german_file(tiny_corpus_folder: Path, tiny_corpus: Corpus, tmp_path: Path) -> Path:
    """German questions alone; all but the first three are translated, by two models."""
    path = tmp_path / "mine.de.json"
    shutil.copy(tiny_corpus_folder / "tiny.de.json", path)
    lines = []
    for place, question in enumerate(load_corpus(path).questions[3:]):
        english = tiny_corpus.question_by_parallel_id[question.parallel_id, "en"]
        line = {
            "id": question.id,
            "language": "de",
            "target": "en",
            "text": question.text,
            "translation": english.text,
            "flaw": None,
            "model": {"name": "made/first" if place < 5 else "made/second"},
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    beside = tmp_path / "mine.de.translations.jsonl"
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_it_is_written_down_who_translated_questions(
    german_file: Path, short_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(short_recipe, corpus=str(german_file))
    corpus = load_corpus(german_file)
    rest = len(corpus.in_languages(["de"]).questions) - 3 - 5
    expected = {"made/first": 5, "made/second": rest}
    settings = settings_of(tmp_path / "out")
    record = reproduce(recipe, settings, [0]).to_json("clrelkt reproduce german")
    assert record["translated_by"] == expected
    assert isinstance(record["corpus"], str)
    assert read(settings.output / "seed-0" / "run.json")["corpus"]["translated_by"] == expected
    assert list(record["stages"])[-2:] == [ZERO_SHOT, "warm-up"]


def test_people_are_no_model(tiny_corpus: Corpus, finished_run: Run) -> None:
    assert count_translated(tiny_corpus) == {}
    assert "translated_by" not in read(finished_run.folder / "run.json")["corpus"]
    questions = list(split_corpus(tiny_corpus).train.questions)
    questions[0] = replace(questions[0], translated_by="b")
    questions[1] = replace(questions[1], translated_by="a")
    questions[2] = replace(questions[2], translated_by="b")
    assert count_translated(tiny_corpus.with_questions(questions)) == {"a": 1, "b": 2}
