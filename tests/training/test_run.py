from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clrelkt.corpora import Corpus, FixedSplit, take_split
from clrelkt.corpora.model import Part
from clrelkt.encoders import MuseEncoder, TrainableEncoder, load_encoder
from clrelkt.errors import (
    DataError,
    SettingsError,
    StorageError,
    TrainingError,
    UnknownNameError,
)
from clrelkt.evaluation import Results, evaluate, evaluate_bm25
from clrelkt.text import IcuWords
from clrelkt.training import BASELINE, ZERO_SHOT, Recipe, Run, RunSettings, train
from clrelkt.training.recipe import recipe_from_json
from clrelkt.training.run import read_run_results

TrainTiny = Callable[..., Run]
SmallFiles = Callable[[int], AbstractContextManager[None]]

STAGES = ("warm-up", "teacher", "student")


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def figures(results: Results) -> dict[str, Any]:
    """A result but for what the encoder is called."""
    return {key: value for key, value in results.to_json().items() if key != "encoder"}


def same_weights(one: TrainableEncoder, other: TrainableEncoder) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


@pytest.fixture
def one_stage(tiny_table: dict[str, Any]) -> Recipe:
    """The student's stage alone, one epoch long."""
    tiny_table["stages"] = [tiny_table["stages"][2]]
    del tiny_table["stages"][0]["start"]
    tiny_table["stages"][0]["optimisation"]["epochs"] = 1
    tiny_table["stages"][0]["dev"]["keep"] = "best"
    return recipe_from_json(tiny_table)


def test_what_a_complete_run_leaves(finished_run: Run) -> None:
    folder = finished_run.folder
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "encoders",
        "log.jsonl",
        "portrait.json",
        "portrait.safetensors",
        "results.json",
        "run.json",
        "timings.json",
    }
    assert {path.name for path in (folder / "encoders").iterdir()} == set(STAGES)
    timings = json.loads((folder / "timings.json").read_text())
    assert set(timings) == {*STAGES, "test"}


def test_run_json_says_what_was_done(
    finished_run: Run, tiny_recipe: Recipe, tiny_corpus: Corpus
) -> None:
    record = json.loads((finished_run.folder / "run.json").read_text())
    assert recipe_from_json(record["recipe"]) == tiny_recipe == finished_run.recipe
    assert (record["format"], record["seed"], record["split_seed"]) == (1, 0, 0)
    assert record["corpus"]["name"] == tiny_corpus.name
    assert record["device"] == "cpu"
    assert record["environment"]["packages"]["torch"] == torch.__version__


def test_the_log_has_a_line_an_evaluation(finished_run: Run) -> None:
    log = read_log(finished_run.folder)
    assert [record["stage"] for record in log] == sorted(
        (record["stage"] for record in log), key=STAGES.index
    )
    for name in STAGES:
        own = [record for record in log if record["stage"] == name]
        assert own[0]["step"] == 0
        assert len(own) >= 3
        for record in own:
            assert record["languages"].keys() == {"de", "ru"}
            mean = sum(record["languages"].values()) / 2
            assert record["dev_hit_rate@1"] == pytest.approx(mean)


def test_results_are_those_of_the_saved_encoders(
    finished_run: Run, tiny_corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    test = take_split(tiny_corpus, "test")
    settings = finished_run.recipe.evaluation
    found, _ = read_run_results(finished_run.folder)
    assert list(found) == [BASELINE, ZERO_SHOT, *STAGES]
    for name in STAGES:
        loaded = load_encoder(finished_run.folder / "encoders" / name)
        expected = evaluate(loaded, test, settings, split="test")
        assert figures(found[name]) == figures(expected)
        assert found[name].encoder == f"encoders/{name}"
    zero_shot = evaluate(tiny_encoder, test, settings, split="test")
    assert figures(found[ZERO_SHOT]) == figures(zero_shot)
    bm25 = evaluate_bm25(test, settings, IcuWords(), split="test", known=tiny_encoder.languages)
    assert found[BASELINE].to_json() == bm25.to_json()
    assert {name: result.to_json() for name, result in finished_run.results.items()} == {
        name: result.to_json() for name, result in found.items()
    }


def test_the_runs_encoder_is_the_last_stages(finished_run: Run) -> None:
    folder = finished_run.folder / "encoders" / "student"
    assert isinstance(finished_run.encoder, MuseEncoder)
    assert same_weights(finished_run.encoder, load_encoder(folder))
    assert finished_run.encoder.name == str(folder)


def test_each_stage_starts_from_the_one_that_it_names(finished_run: Run) -> None:
    log = read_log(finished_run.folder)
    for before, stage in (("warm-up", "teacher"), ("teacher", "student")):
        kept = [record for record in log if record["stage"] == before and record["kept"]]
        start = next(record for record in log if record["stage"] == stage)
        assert start["languages"] == kept[-1]["languages"]


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, finished_run: Run, train_tiny: TrainTiny
) -> None:
    # Checkpoints, or none, change nothing.
    again = train_tiny(tmp_path / "again", checkpoint_seconds=0)
    for name in ("log.jsonl", "results.json"):
        assert (again.folder / name).read_bytes() == (finished_run.folder / name).read_bytes()
    for stage in STAGES:
        file = Path("encoders") / stage / "model.safetensors"
        assert (again.folder / file).read_bytes() == (finished_run.folder / file).read_bytes()
    assert {path.name for path in again.folder.iterdir()} == {
        path.name for path in finished_run.folder.iterdir()
    }


def test_seeds_change_what_they_should(
    tmp_path: Path, train_tiny: TrainTiny, one_stage: Recipe
) -> None:
    runs = [
        train_tiny(tmp_path / f"{seed}-{split_seed}", one_stage, seed=seed, split_seed=split_seed)
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    ]
    first, other_seed, other_split = (read_log(run.folder) for run in runs)
    # The same dev questions, but other batches; then other dev questions.
    assert first[0] == other_seed[0]
    assert [record["loss"] for record in first] != [record["loss"] for record in other_seed]
    assert not same_weights(runs[0].encoder, runs[1].encoder)
    assert figures(runs[0].results[ZERO_SHOT]) == figures(runs[1].results[ZERO_SHOT])
    assert [record["loss"] for record in first] != [record["loss"] for record in other_split]


def test_as_deltas_of_the_published_encoder(
    tmp_path: Path, tiny_corpus: Corpus, muse: MuseEncoder, one_stage: Recipe
) -> None:
    recipe = replace(one_stage, encoder="muse")
    run = train(recipe, RunSettings(tmp_path / "run", device="cpu", progress=False), tiny_corpus)
    folder = run.folder / "encoders" / "student"
    assert json.loads((folder / "clrelkt.json").read_text())["form"] == "delta"
    loaded = load_encoder(folder)
    assert isinstance(run.encoder, MuseEncoder)
    assert same_weights(loaded, run.encoder)
    assert not same_weights(loaded, muse)
    expected = evaluate(loaded, take_split(tiny_corpus, "test"), recipe.evaluation, split="test")
    assert figures(read_run_results(run.folder)[0]["student"]) == figures(expected)


@pytest.fixture
def stopped(tmp_path: Path, train_tiny: TrainTiny, small_files: SmallFiles) -> Path:
    """A run that a full disk stopped when a checkpoint, with the best encoder in it, grew."""
    whole = 5_000_000
    with small_files(whole * 7 // 2), pytest.raises(StorageError, match=r"(?i)too large.*Free som"):
        train_tiny(tmp_path / "run", checkpoint_seconds=0)
    return tmp_path / "run"


def test_a_full_disk_loses_nothing_that_was_written(
    stopped: Path, finished_run: Run, train_tiny: TrainTiny
) -> None:
    checkpoint = json.loads((stopped / "checkpoint.json").read_text())
    assert checkpoint["position"]["step"] > 0
    assert (stopped / checkpoint["tensors"]).is_file()
    assert len(read_log(stopped)) >= checkpoint["position"]["log_lines"] == 1
    assert not list(stopped.glob(".*.*"))
    run = train_tiny(stopped, resume=True)
    for name in ("log.jsonl", "results.json"):
        assert (run.folder / name).read_bytes() == (finished_run.folder / name).read_bytes()
    assert same_weights(run.encoder, finished_run.encoder)


def test_a_full_disk_when_a_stage_is_saved(
    tmp_path: Path, finished_run: Run, train_tiny: TrainTiny, small_files: SmallFiles
) -> None:
    folder = tmp_path / "run"
    with small_files(1_000_000), pytest.raises(StorageError, match=r"(?i)too large.*Free some sp"):
        train_tiny(folder)
    before = (folder / "log.jsonl").read_bytes()
    assert (finished_run.folder / "log.jsonl").read_bytes().startswith(before)
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "encoders",
        "log.jsonl",
        "run.json",
    }
    assert list((folder / "encoders").iterdir()) == []


def test_a_folder_that_holds_a_run(finished_run: Run, train_tiny: TrainTiny) -> None:
    with pytest.raises(StorageError, match="holds a run already: go on with --resume"):
        train_tiny(finished_run.folder)
    with pytest.raises(TrainingError, match="is complete; nothing is left to resume"):
        train_tiny(finished_run.folder, resume=True)


def test_what_a_kill_at_the_very_end_left_is_removed(
    tmp_path: Path, finished_run: Run, train_tiny: TrainTiny
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    (folder / "kept").mkdir()
    (folder / "kept" / "student.safetensors").touch()
    (folder / "checkpoint.json").touch()
    with pytest.raises(TrainingError, match="is complete"):
        train_tiny(folder, resume=True)
    left, right = (sorted(path.iterdir()) for path in (folder, finished_run.folder))
    assert [path.name for path in left] == [path.name for path in right]


def test_what_a_kill_left_half_written_is_removed(
    stopped: Path, train_tiny: TrainTiny, small_files: SmallFiles
) -> None:
    before = read_log(stopped)
    (stopped / ".checkpoint-0-9.safetensors.ab12").touch()
    (stopped / "kept").mkdir()
    (stopped / "kept" / ".warm-up.safetensors.ab12").touch()
    (stopped / "encoders" / ".warm-up.ab12").mkdir(parents=True)
    (stopped / ".note.of.the.user").touch()
    with (stopped / "log.jsonl").open("a") as file:
        file.write('{"stage": "warm-up", "languages": {"de": 0.25}')
    with small_files(1_000_000), pytest.raises(StorageError):
        train_tiny(stopped, resume=True, checkpoint_seconds=0)
    assert {path.name for path in stopped.rglob(".*")} == {".lock", ".note.of.the.user"}
    after = read_log(stopped)
    assert after == before[: len(after)]


@pytest.mark.parametrize(
    ("what", "settings"), [("seed", {"seed": 1}), ("split_seed", {"split_seed": 1})]
)
def test_resumed_with_another_seed(
    stopped: Path, train_tiny: TrainTiny, what: str, settings: dict[str, int]
) -> None:
    with pytest.raises(TrainingError, match=f"has another {what}; resume it with the same one"):
        train_tiny(stopped, resume=True, **settings)


def test_resumed_with_another_recipe(
    stopped: Path, train_tiny: TrainTiny, tiny_table: dict[str, Any]
) -> None:
    tiny_table["stages"][2]["optimisation"]["learning_rate"] = 2e-4
    with pytest.raises(TrainingError, match="has another recipe; resume it with the same one"):
        train_tiny(stopped, recipe_from_json(tiny_table), resume=True)


def test_resumed_with_another_corpus_or_encoder_of_that_name(
    stopped: Path, tiny_recipe: Recipe, tiny_corpus: Corpus, tiny_encoder: MuseEncoder
) -> None:
    settings = RunSettings(stopped, resume=True, save_form="whole", device="cpu", progress=False)
    first = tiny_corpus.questions[0]
    other = tiny_corpus.with_questions(
        [replace(first, text=first.text + "?"), *tiny_corpus.questions[1:]]
    )
    with pytest.raises(TrainingError, match="has another corpus"):
        train(tiny_recipe, settings, other)
    record = json.loads((stopped / "run.json").read_text())
    record["weights_sha256"] = "0" * 64
    (stopped / "run.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="has another weights_sha256"):
        train(tiny_recipe, settings)


def test_a_newer_format(stopped: Path, train_tiny: TrainTiny) -> None:
    record = json.loads((stopped / "run.json").read_text())
    (stopped / "run.json").write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(TrainingError, match="format 2, but this clrelkt reads up to 1; install"):
        train_tiny(stopped, resume=True)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_description_that_is_none(stopped: Path, train_tiny: TrainTiny, content: str) -> None:
    (stopped / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"run\.json"):
        train_tiny(stopped, resume=True)


def test_a_run_that_another_process_works_on(tmp_path: Path, train_tiny: TrainTiny) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process is training in"):
            train_tiny(folder)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_log_that_lost_lines(stopped: Path, train_tiny: TrainTiny) -> None:
    (stopped / "log.jsonl").write_text("")
    with pytest.raises(TrainingError, match=r"log\.jsonl has 0 lines, but the checkpoint"):
        train_tiny(stopped, resume=True)


def test_a_checkpoint_that_is_damaged(stopped: Path, train_tiny: TrainTiny) -> None:
    file = next(stopped.glob("checkpoint-*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint cannot be read .*start the run anew"):
        train_tiny(stopped, resume=True)


def replace_stage(recipe: Recipe, **optimisation: Any) -> Recipe:
    *others, last = recipe.stages
    changed = replace(last, optimisation=replace(last.optimisation, **optimisation))
    return replace(recipe, stages=(*others, changed))


def test_a_loss_that_is_not_a_number_leaves_what_went_before(
    tmp_path: Path, train_tiny: TrainTiny, tiny_recipe: Recipe
) -> None:
    folder = tmp_path / "run"
    two = replace(tiny_recipe, stages=tiny_recipe.stages[:2])
    with pytest.raises(TrainingError, match=r"stage 'teacher', epoch \d, step \d+: .*1e\+30"):
        train_tiny(folder, replace_stage(two, learning_rate=1e30))
    log = read_log(folder)
    assert {record["stage"] for record in log} == {"warm-up", "teacher"}
    assert load_encoder(folder / "encoders" / "warm-up").dimension == 32
    assert not (folder / "results.json").exists()
    with pytest.raises(TrainingError, match=r"results\.json"):
        read_run_results(folder)


def test_an_output_that_cannot_be_written(tmp_path: Path, train_tiny: TrainTiny) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "run"):
        with pytest.raises(StorageError, match=str(file)):
            train_tiny(path)
    with pytest.raises(StorageError, match="/proc/run"):
        train_tiny(Path("/proc/run"))


def test_a_corpus_without_training_questions(
    tmp_path: Path, tiny_corpus: Corpus, tiny_recipe: Recipe
) -> None:
    settings = RunSettings(tmp_path / "run", save_form="whole", device="cpu", progress=False)
    parts: dict[str, Part] = {question.parallel_id: "test" for question in tiny_corpus.questions}
    fixed = replace(tiny_corpus, fixed_split=FixedSplit(parts, remedy="get the other half"))
    with pytest.raises(DataError, match="no training questions here: get the other half"):
        train(tiny_recipe, settings, fixed)
    with pytest.raises(DataError, match="no training questions here"):
        train(tiny_recipe, settings, tiny_corpus.with_questions([]))
    assert not settings.output.exists()


def test_a_language_that_is_missing_stops_a_run_before_it_starts(
    tmp_path: Path, train_tiny: TrainTiny, tiny_table: dict[str, Any]
) -> None:
    tiny_table["stages"][2]["languages"] = ["de", "el"]
    with pytest.raises(UnknownNameError, match="no questions in 'el'; it has en de ru"):
        train_tiny(tmp_path / "run", recipe_from_json(tiny_table))
    assert not (tmp_path / "run").exists()


def test_without_english_there_is_no_baseline(
    tmp_path: Path, tiny_corpus: Corpus, tiny_table: dict[str, Any]
) -> None:
    tiny_table["stages"] = [tiny_table["stages"][1]]
    del tiny_table["stages"][0]["start"]
    tiny_table["stages"][0]["optimisation"]["epochs"] = 1
    settings = RunSettings(tmp_path / "run", save_form="whole", device="cpu", progress=False)
    run = train(recipe_from_json(tiny_table), settings, tiny_corpus.in_languages(["de", "ru"]))
    assert list(run.results) == [ZERO_SHOT, "teacher"]


def test_questions_that_are_left_out_stand_in_the_log(
    tmp_path: Path, tiny_corpus: Corpus, one_stage: Recipe
) -> None:
    training = take_split(tiny_corpus, "train").questions
    lost = training[0].parallel_id
    corpus = tiny_corpus.with_questions(
        q for q in tiny_corpus.questions if (q.parallel_id, q.language) != (lost, "en")
    )
    settings = RunSettings(tmp_path / "run", save_form="whole", device="cpu", progress=False)
    train(one_stage, settings, corpus)
    assert read_log(settings.output)[0] == {
        "stage": "student",
        "left_out": {"no translation into the documents' language": 2},
    }


def test_a_stage_trains_on_its_languages(
    tmp_path: Path, train_tiny: TrainTiny, tiny_table: dict[str, Any], one_stage: Recipe
) -> None:
    stage = replace(one_stage.stages[0], languages=("ru",))
    run = train_tiny(tmp_path / "run", replace(one_stage, stages=(stage,)))
    assert all(record["languages"].keys() == {"ru"} for record in read_log(run.folder))
    assert run.results["student"].languages.keys() == {"en", "de", "ru"}
    narrow = train_tiny(tmp_path / "narrow", replace(one_stage, languages=("ru",)))
    assert narrow.results["student"].languages.keys() == {"en", "ru"}


def test_a_delta_needs_a_published_base(tmp_path: Path, train_tiny: TrainTiny) -> None:
    with pytest.raises(
        SettingsError, match=r"save form 'delta': .* has no published base .* Use whole"
    ):
        train_tiny(tmp_path / "run", save_form="delta")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings", [{"seed": -1}, {"split_seed": -1}, {"checkpoint_seconds": -0.5}]
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="none may be negative"):
        RunSettings(tmp_path, **settings)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there(tmp_path: Path, train_tiny: TrainTiny, device: str) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SettingsError, match=f"device '?{device}"):
        train_tiny(tmp_path / "run", device=device)
