from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from clrelkt.errors import SettingsError, UnknownNameError
from clrelkt.training import known_recipes, load_recipe
from clrelkt.training.recipe import (
    DevSettings,
    Optimisation,
    Recipe,
    Teacher,
    Transfer,
    WarmUp,
    recipe_from_json,
)


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_loads_and_goes_through_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_recipes_are_there() -> None:
    assert {"demo", "xquad"} <= known_recipes().keys()


def test_xquad_is_the_papers() -> None:
    recipe = load_recipe("xquad")
    methods = [stage.method for stage in recipe.stages]
    assert [type(method) for method in methods] == [WarmUp, Teacher, Transfer, Transfer]
    warm_up, teacher, student = methods[:3]
    assert isinstance(warm_up, WarmUp)
    assert (warm_up.margin, warm_up.bm25_epochs) == (0.24, 3)
    assert (warm_up.negatives.per_question, warm_up.negatives.first_rank) == (3, 2)
    assert isinstance(teacher, Teacher)
    assert (teacher.margin, teacher.negatives.hard, teacher.negatives.semi_hard) == (0.24, 1, 1)
    assert isinstance(student, Transfer)
    weights = student.weights
    assert (weights.question, weights.document, weights.document_question) == (0.001, 1, 0.01)
    assert weights.scale == 1000
    assert [stage.optimisation.epochs for stage in recipe.stages] == [10, 100, 30, 30]
    assert [stage.optimisation.learning_rate for stage in recipe.stages] == [
        1e-5,
        1e-5,
        1e-3,
        1e-3,
    ]
    assert {stage.optimisation.adam_epsilon for stage in recipe.stages} == {1e-7}
    assert {stage.optimisation.batch for stage in recipe.stages} == {16}


def test_a_file_in_toml_or_json(tmp_path: Path, tiny_table: dict[str, Any]) -> None:
    written = tmp_path / "own.json"
    written.write_text(json.dumps(tiny_table), encoding="utf-8")
    assert load_recipe(written) == recipe_from_json(tiny_table)
    known = known_recipes()["demo"]
    copied = tmp_path / "copied.toml"
    copied.write_bytes(known.read_bytes())
    assert load_recipe(str(copied)) == load_recipe("demo")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.toml", b"stages = [", "not a TOML file"),
        ("broken.toml", b"name = '\xff'", "not a TOML file"),
        ("broken.json", b"{", "not a JSON file"),
        ("list.json", b"[1]", "a table expected, got [1]"),
        ("empty.toml", b"", "'name' is missing"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{name}: {re.escape(message)}"):
        load_recipe(path)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe 'xquat': .*demo.*xquad"):
        load_recipe("xquat")


def put(table: dict[str, Any], path: str, value: Any) -> None:
    """Set ``stages.0.name`` and the like."""
    *outer, last = path.split(".")
    inner: Any = table
    for key in outer:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last] = value


NAN = float("nan")
METHOD, TEACHER, STUDENT = "stages.0.method", "stages.1.method", "stages.2.method"
RATES, DEV = "stages.0.optimisation", "stages.0.dev"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # of the wrong type
        ("name", 3, "FILE: name: got 3, expected str"),
        ("languages", "de", "FILE: languages: a list with at least one entry expected, got 'de'"),
        ("languages", [], "FILE: languages: a list with at least one entry expected, got []"),
        ("languages", ["de", 5], "FILE: languages[1]: got 5, expected str"),
        ("evaluation", 7, "FILE: evaluation: a table expected, got 7"),
        ("stages", {}, "FILE: stages: a list with at least one entry expected, got {}"),
        ("stages", [4], "FILE: stages[0]: a table expected, got 4"),
        (f"{RATES}.epochs", 2.5, "FILE: stages[0]: optimisation: epochs: got 2.5, expected int"),
        (f"{RATES}.epochs", True, "FILE: stages[0]: optimisation: epochs: got True, expected int"),
        (f"{RATES}.learning_rate", "fast", "learning_rate: got 'fast', expected float"),
        (f"{RATES}.learning_rate", True, "learning_rate: got True, expected float"),
        (f"{METHOD}", "warm-up", "FILE: stages[0]: method: a table whose 'kind' is one of"),
        (
            f"{METHOD}.kind",
            "cool-down",
            "'kind' is one of warm-up, teacher, transfer, contr",
        ),
        # not one of the words
        ("split_by", "answer", "FILE: split_by: got 'answer', expected one of question, document"),
        ("evaluation.pool", "town", "pool: got 'town', expected one of document, passage"),
        (f"{METHOD}.distance", "far", "got 'far', expected one of cosine, euclidean"),
        (f"{DEV}.keep", "worst", "got 'worst', expected one of best, best-or-start"),
        # out of range
        (f"{RATES}.learning_rate", NAN, "learning_rate: got nan, expected a finite number"),
        (f"{RATES}.learning_rate", float("inf"), "got inf, expected a finite number"),
        (f"{RATES}.learning_rate", 0, "learning_rate 0.0 and adam_epsilon 1e-07: both must"),
        (f"{RATES}.adam_epsilon", -1.0, "adam_epsilon -1.0: both must be above 0"),
        (f"{RATES}.epochs", 0, "epochs 0, batch 16,"),
        (f"{RATES}.batch", -4, "batch -4,"),
        (f"{RATES}.batch_tokens", 0, "batch_tokens 0: it must be at least 1"),
        (f"{RATES}.halve_first", 0, "halve_first 0"),
        (f"{RATES}.halve_every", 0, "halve_every 0: all must be at least 1"),
        (f"{RATES}.rate_floor", 1.5, "rate_floor 1.5: it must lie between 0 and 1"),
        (f"{DEV}.patience", 0, "patience 0 and 2 evaluations: both must be at least 1"),
        (f"{DEV}.times_per_epoch", 0, "and 0 evaluations: both must be at least 1"),
        (f"{DEV}.every_steps", 5, "every_steps 5 and times_per_epoch 2: exactly one"),
        (f"{DEV}.first_stop_epoch", -1, "first_stop_epoch -1: it may not be negative"),
        (f"{METHOD}.margin", 0, "method: margin 0.0: it must be above 0"),
        (f"{METHOD}.bm25_epochs", -1, "method: bm25_epochs -1: it may not be negative"),
        (f"{METHOD}.negatives", {"per_question": 0}, "method: negatives: BM25 mining with per_que"),
        (f"{TEACHER}.negatives", {"hard": -1}, "method: negatives: dense mining with hard = -1"),
        (f"{TEACHER}.negatives", {"margin": 0}, "dense mining with margin 0.0: it must be above 0"),
        (f"{STUDENT}.weights.question", -1, "transfer weights (-1.0, 1.0, 0.1)"),
        # names
        ("stages.0.name", "../up", "FILE: stages[0]: name '../up': Latin letters"),
        ("stages.0.name", "", "FILE: stages[0]: name '': Latin letters"),
        ("stages.0.name", "zero-shot", "name 'zero-shot': a run's files call something else so"),
        ("stages.0.name", "bm25", "name 'bm25': a run's files call something else so"),
        ("stages.1.name", "warm-up", "FILE: recipe 'tiny': two stages are called 'warm-up'"),
        ("stages.1.start", "student", "starts from 'student', which is no earlier stage (warm-up)"),
        ("stages.0.start", "nowhere", "which is no earlier stage (there is none)"),
        ("stages.0.start", "warm-up", "stage 'warm-up' starts from 'warm-up', which is no earlier"),
        # not known or missing
        ("corpora", "x", "FILE: 'corpora' is not known here; known: name, corpus, stages"),
        ("stages.0.optimizer", 1, "FILE: stages[0]: 'optimizer' is not known here; known: name"),
        (f"{RATES}.lr", 1e-5, "FILE: stages[0]: optimisation: 'lr' is not known here; known: ep"),
        (f"{METHOD}.quota", 1, "FILE: stages[0]: method: 'quota' is not known here; known: marg"),
        (f"{STUDENT}.weights", {"question": 1}, "method: weights: 'document' is missing"),
        (f"{METHOD}", {"kind": "warm-up"}, "FILE: stages[0]: method: 'margin' is missing"),
        (f"{DEV}", {"patience": 2}, "every_steps None and times_per_epoch None: exactly one"),
    ],
)
def test_a_value_that_cannot_be(
    tmp_path: Path, tiny_table: dict[str, Any], path: str, value: Any, said: str
) -> None:
    put(tiny_table, path, value)
    with pytest.raises(SettingsError) as caught:
        recipe_from_json(tiny_table, "FILE")
    assert str(caught.value).startswith("FILE: ")
    assert str(caught.value).count("FILE") == 1
    assert said in str(caught.value)


def test_a_stage_with_a_language_that_the_recipe_has_not(tiny_table: dict[str, Any]) -> None:
    tiny_table["languages"] = ["de", "ru"]
    tiny_table["stages"][1]["languages"] = ["ru", "el"]
    with pytest.raises(SettingsError, match=r"stage 'teacher' trains on el, but .* are de ru"):
        recipe_from_json(tiny_table)


def test_languages_of_a_stage(tiny_table: dict[str, Any]) -> None:
    tiny_table["stages"][1]["languages"] = ["ru"]
    recipe = recipe_from_json(tiny_table)
    asked = [recipe.stage_languages(stage, ("de", "ru")) for stage in recipe.stages]
    assert asked == [("de", "ru"), ("ru",), ("de", "ru")]
    tiny_table["languages"] = ["ru", "de"]
    recipe = recipe_from_json(tiny_table)
    assert recipe.stage_languages(recipe.stages[0], ("de", "ru")) == ("ru", "de")


def test_up_to_a_stage(tiny_table: dict[str, Any]) -> None:
    del tiny_table["stages"][2]["start"]
    recipe = recipe_from_json(tiny_table)
    assert [stage.name for stage in recipe.up_to("teacher").stages] == ["warm-up", "teacher"]
    assert [stage.name for stage in recipe.up_to("student").stages] == ["student"]
    with pytest.raises(UnknownNameError, match="no stage 'end'; it has warm-up, teacher, student"):
        recipe.up_to("end")


def test_what_json_leaves_out_is_the_default() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1e-5)
    assert (optimisation.batch, optimisation.adam_epsilon) == (16, 1e-7)
    assert DevSettings(patience=1, every_steps=1).keep == "best"


def test_a_recipe_without_stages() -> None:
    with pytest.raises(SettingsError, match="recipe 'none' has no stages"):
        Recipe("none", "bundled", ())
