"""What ``--encoder`` and ``--split-by`` change, and where it is written down."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clrelkt.cli.main import main
from clrelkt.cli.options import changed_recipe, changes_in_words
from clrelkt.cli.reproduce import reproduce
from clrelkt.cli.train import train
from clrelkt.corpora import Corpus, split_corpus
from clrelkt.training import load_recipe


@pytest.fixture
def recipe_file(tiny_table: dict[str, Any], tmp_path: Path) -> Path:
    """One stage, one epoch, from an encoder that does not exist, split by question."""
    tiny_table["encoder"] = "no-such-encoder"
    tiny_table["stages"] = tiny_table["stages"][:1]
    tiny_table["stages"][0]["optimisation"]["epochs"] = 1
    path = tmp_path / "tiny recipe.json"
    path.write_text(json.dumps(tiny_table), encoding="utf-8")
    return path


def asked_in(record: dict[str, Any]) -> set[str]:
    return {id_ for found in record["languages"].values() for id_, _ in found["ranks"]}


def test_reproduce_records_both(
    recipe_file: Path, tiny_encoder_folder: Path, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    arguments = [str(recipe_file), "--encoder", str(tiny_encoder_folder), "--split-by", "document"]
    more = ["--seeds", "1", "-o", str(tmp_path / "out"), "--save-form", "whole"]
    done = CliRunner().invoke(reproduce, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "split by document" in done.output
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["recipe"]["split_by"] == "document"
    assert record["recipe"]["encoder"] == str(tiny_encoder_folder)
    command = ["clrelkt", "reproduce", *arguments, "--seeds", "1", "--split-seed", "0"]
    assert shlex.split(record["command"]) == command
    path = tmp_path / "out" / "seed-0" / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    expected = split_corpus(tiny_corpus, by="document").test
    assert asked_in(results["warm-up"]) == {q.parallel_id for q in expected.questions}


def test_train_with_another_encoder_and_split(
    recipe_file: Path, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    arguments = [str(recipe_file), "--encoder", str(tiny_encoder_folder), "--split-by", "document"]
    more = ["-o", str(tmp_path / "out"), "--save-form", "whole", "--json"]
    done = CliRunner().invoke(train, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["recipe"]["split_by"] == "document"
    assert run["recipe"]["encoder"] == str(tiny_encoder_folder)


def test_without_them_the_recipe_stands() -> None:
    recipe = load_recipe("demo")
    assert changed_recipe(recipe, None, None) == recipe
    assert changes_in_words(None, None) == ""
    assert changes_in_words("my encoder", "question") == (
        " --encoder 'my encoder' --split-by question"
    )


def test_an_unknown_encoder(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", str(recipe_file), "--encoder", "nowhere", "--seeds", "1"])
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "nowhere" in message
