from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from clrelkt.cli.main import cli
from clrelkt.errors import ClrelktError

DENSE = ("--rows", "20", "--hard", "2", "--semi-hard", "2", "--seed", "5")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["mine", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def large(tmp_path: Path) -> list[str]:
    """Questions and passages with vectors, enough that a run takes a while."""
    rng = np.random.default_rng(0)
    passages, questions = 3_000, 1_000
    vectors = rng.standard_normal((passages, 32)).astype(np.float32)
    gold = rng.integers(0, passages, questions)
    np.save(tmp_path / "p.npy", vectors)
    np.save(tmp_path / "q.npy", vectors[gold] + 2 * rng.standard_normal((questions, 32)))
    with (tmp_path / "p.jsonl").open("w") as file:
        for number in range(passages):
            record = {"id": f"p{number}", "text": f"word{number} word{number % 17} honey"}
            file.write(json.dumps(record | {"document": f"d{number // 3}"}) + "\n")
    with (tmp_path / "q.jsonl").open("w") as file:
        for number in range(questions):
            text = f"word{gold[number]} honey?"
            positive = [f"p{gold[number]}"]
            question = {"id": f"q{number}", "text": text, "positive_ids": positive}
            file.write(json.dumps(question) + "\n")
    return ["--questions", str(tmp_path / "q.jsonl"), "--passages", str(tmp_path / "p.jsonl")]


def vectors_of(folder: Path) -> list[str]:
    return [
        "--question-vectors",
        str(folder / "q.npy"),
        "--passage-vectors",
        str(folder / "p.npy"),
        "--device",
        "cpu",
    ]


@pytest.mark.parametrize("kind", ["dense", "bm25"])
def test_a_killed_run_goes_on_to_the_same_result(
    large: list[str], tmp_path: Path, kind: str
) -> None:
    options = [*vectors_of(tmp_path), *DENSE] if kind == "dense" else ["--rows", "10"]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    run(kind, *large, *options, "-o", str(whole))
    parts = tmp_path / "killed.jsonl.parts"
    command = [sys.executable, "-m", "clrelkt", "mine", kind, *large, *options]
    process = subprocess.Popen([*command, "-o", str(killed)], env=os.environ)
    deadline = time.monotonic() + 120
    while len(list(parts.glob(f"{kind}-*.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in sorted(parts.glob(f"{kind}-*.npy"))}
    assert 2 <= len(kept) < 100
    assert not killed.exists()
    with pytest.raises(ClrelktError, match="go on with --resume"):
        run(kind, *large, *options, "-o", str(killed))
    with pytest.raises(ClrelktError, match="made with rows"):
        run(kind, *large, *options, "--rows", "7", "-o", str(killed), "--resume")
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    run(kind, *large, *options, "-o", str(killed), "--resume")
    assert killed.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_several_devices_find_the_same(large: list[str], tmp_path: Path) -> None:
    alone, three = tmp_path / "alone.jsonl", tmp_path / "three.jsonl"
    for output, gpus in ((alone, "1"), (three, "3")):
        run("dense", *large, *vectors_of(tmp_path), *DENSE, "--gpus", gpus, "-o", str(output))
    assert alone.read_bytes() == three.read_bytes()
    few = ("dense", "bundled", "--encoder", "muse", "--language", "th", "--choose", "nearest")
    for output, gpus in ((alone, "1"), (three, "2")):
        output.unlink()
        run(*few, "--device", "cpu", "--gpus", gpus, "-o", str(output))
    assert alone.read_bytes() == three.read_bytes()


def test_bm25_negatives_of_files(large: list[str], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    found = json.loads(run("bm25", *large, "--texts", "--json", "-o", str(output)))
    mined = rows(output)
    assert found["triplets"] == len(mined) == 3_000
    assert found["kinds"] == {"bm25": 3_000}
    assert (found["questions"], found["candidates"]) == (1_000, 3_000)
    assert found["without_negative"] == 0
    for row in mined[:50]:
        assert int(row["negative_id"][1:]) // 3 != int(row["positive_id"][1:]) // 3
        assert row["anchor"].split()[0] in row["positive"]
        assert "honey" in row["negative"]


def test_an_encoder_mines_a_corpus_as_in_training(tmp_path: Path) -> None:
    from clrelkt.corpora import load_corpus
    from clrelkt.encoders import load_encoder
    from clrelkt.mining import DenseMining, mine_with_encoder

    output = tmp_path / "t.parquet"
    run(
        *("dense", "bundled", "--encoder", "muse", "--language", "th", "--choose", "nearest"),
        *("--hard", "2", "--device", "cpu", "-o", str(output)),
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    mined = [tuple(row.values())[:3] for row in parquet.read_table(output).to_pylist()]
    corpus = load_corpus("bundled")
    settings = DenseMining(hard=2, granularity="passage", choose="nearest")
    expected = mine_with_encoder(
        load_encoder("muse"), corpus.questions_in("th"), corpus, settings, seed=0
    )
    assert mined == list(
        zip(expected.question_ids, expected.positive_ids, expected.negative_ids, strict=True)
    )


def test_a_finished_result_is_never_overwritten(large: list[str], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    output.write_text("mine")
    with pytest.raises(ClrelktError, match="is there already"):
        run("bm25", *large, "-o", str(output))
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bm25", "-o", "t.jsonl"], "either a CORPUS, or both"),
        (["bm25", "bundled", "--questions", "q", "-o", "t.jsonl"], "either a CORPUS, or both"),
        (["bm25", "bundled", "-o", "t.csv"], "ends in .jsonl or .parquet"),
        (["dense", "bundled", "-o", "t.jsonl"], "either --encoder, or both"),
        (["dense", "bundled", "--encoder", "none", "-o", "t.jsonl"], "none"),
        (["bm25", "bundled", "--language", "xx", "-o", "t.jsonl"], "no questions in 'xx'"),
        (
            ["dense", "bundled", "--encoder", "muse", "--margin", "-1", "-o", "t.jsonl"],
            "margin -1.0: it must be above 0",
        ),
        (
            ["dense", "bundled", "--encoder", "muse", "--gpus", "99", "-o", "t.jsonl"],
            r"gpus 99: torch finds \d+ here",
        ),
        (
            [
                "dense",
                "bundled",
                "--encoder",
                "muse",
                "--gpus=2",
                "--device=cpu:0",
                "-o",
                "t.jsonl",
            ],
            "device cpu:0 is a single one, but 2 are asked for",
        ),
    ],
)
def test_what_cannot_be(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClrelktError, match=message):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_vectors_end_without_a_traceback(large: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.ones((1_000, 5), np.float32))
    command = [sys.executable, "-m", "clrelkt", "mine", "dense", *large, *vectors_of(tmp_path)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "t.jsonl")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "q.npy has vectors of dimension 5" in done.stderr
    assert "p.npy of 32; encode both with the same encoder" in done.stderr
