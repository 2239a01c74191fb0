"""Several processes carry out one run, for real: gloo on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.encoders import load_encoder
from clrelkt.encoders.muse.encoder import MuseEncoder
from clrelkt.encoders.tensors import read_tensors
from clrelkt.training import Recipe, Run
from clrelkt.training.process_group import balanced_shares

TrainTiny = Callable[..., Run]


def command(recipe: Path, folder: Path) -> list[str]:
    words = ["-m", "clrelkt", "train", str(recipe), "--output", str(folder)]
    return [*words, "--save-form", "whole", "--device", "cpu"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments: str) -> str:
    process = start(*arguments)
    output, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return output


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_losses_and_weights_are_those_of_one_process(
    tmp_path: Path, tiny_corpus_folder: Path, tiny_encoder_folder: Path
) -> None:
    program = str(Path(__file__).with_name("exact_stages.py"))
    inputs = (str(tiny_corpus_folder), str(tiny_encoder_folder))
    alone, two = tmp_path / "alone", tmp_path / "two"
    finish(program, *inputs, str(alone))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    finish(*torchrun, program, *inputs, str(two), "300")
    for stage in ("warm-up", "teacher", "contrastive"):
        mine, other = (json.loads((f / f"{stage}.json").read_text()) for f in (two, alone))
        for one, expected in zip(mine, other, strict=True):
            losses = [record.pop("loss") for record in (one, expected)]
            assert losses[0] == (losses[1] and pytest.approx(losses[1], rel=1e-9))
            assert one == expected
        weights, expected = (read_tensors(f / f"{stage}.safetensors") for f in (two, alone))
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-8)


STAGES = ("warm-up", "teacher")
"""The student's first gradients are nothing but rounding, which Adam makes as large as any."""


def assert_same_run(folder: Path, alone: Path, start: MuseEncoder) -> None:
    """Compare a run of two stages with the one that ran through alone, but for rounding.

    Adam makes the rounding of a gradient that is nearly nothing into a step: a parameter as a whole
    may be off by a small share of the way that it went from ``start``.
    """
    mine = read_log(folder)
    others = [record for record in read_log(alone) if record["stage"] in STAGES]
    for one, expected in zip(mine, others, strict=True):
        losses = [record.pop("loss") for record in (one, expected)]
        assert losses[0] == (losses[1] and pytest.approx(losses[1], rel=1e-4))
        assert one.pop("losses", []) == pytest.approx(expected.pop("losses", []), rel=1e-4)
        assert one == expected
    for stage in STAGES:
        trained = load_encoder(folder / "encoders" / stage)
        expected = dict(load_encoder(alone / "encoders" / stage).named_parameters())
        before = dict(start.named_parameters())
        for name, parameter in trained.named_parameters():
            way = (expected[name] - before[name]).norm()
            assert (parameter - expected[name]).norm() <= 5e-3 * way, f"{stage}, {name}"
    # A report is what the command adds to the run itself.
    names = {path.name for path in folder.iterdir()} - {"report.html"}
    assert names == {path.name for path in alone.iterdir()}


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tiny_recipe.up_to("teacher").to_json()), encoding="utf-8")
    return path


def test_two_processes_train_as_one_does(
    tmp_path: Path, recipe_file: Path, finished_run: Run, tiny_encoder: MuseEncoder
) -> None:
    folder = tmp_path / "two"
    output = finish(*command(recipe_file, folder), "--gpus", "2")
    assert output.count("its encoders: ") == 1, "only the first process shows results"
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    assert_same_run(folder, finished_run.folder, tiny_encoder)


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(number) for number in path.read_text().split()]


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool], launcher: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        assert launcher is None or launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)


def test_when_a_process_dies_all_stop_and_one_can_go_on_alone(
    tmp_path: Path,
    recipe_file: Path,
    finished_run: Run,
    train_tiny: TrainTiny,
    tiny_recipe: Recipe,
    tiny_encoder: MuseEncoder,
) -> None:
    folder = tmp_path / "two"
    words = [*command(recipe_file, folder), "--gpus", "2", "--checkpoint-seconds", "0"]
    launcher = start(*words)
    wait_until((folder / "kept" / "warm-up.safetensors").exists, launcher)
    workers = workers_of(launcher)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert said.strip() == (
        "error: process 1 of 2: it was ended by SIGKILL, and the others were stopped. "
        "Go on with --resume"
    )
    wait_until(lambda: not any(map(is_running, workers)))
    train_tiny(folder, tiny_recipe.up_to("teacher"), resume=True)
    assert_same_run(folder, finished_run.folder, tiny_encoder)


def test_an_error_of_one_process_is_shown_once(
    tmp_path: Path, recipe_file: Path, finished_run: Run
) -> None:
    # Only the first process looks at the folder: the other one is left waiting.
    launcher = start(*command(recipe_file, finished_run.folder), "--gpus", "2")
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 1
    assert said.startswith("error: process 0 of 2: ")
    assert said.count("holds a run already: go on with --resume") == 1
    assert said.count("\n") == 1


lengths_of_texts = st.lists(st.integers(1, 2000), max_size=60)


@given(lengths_of_texts, st.integers(1, 5))
def test_shares_hold_every_text_once_and_weigh_about_the_same(
    lengths: list[int], parts: int
) -> None:
    shares = balanced_shares(lengths, parts)
    assert len(shares) == parts
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    assert all((np.diff(share) > 0).all() for share in shares)
    weights = [sum(lengths[place] for place in share) for share in shares]
    assert max(weights) - min(weights) <= max(lengths, default=0)


@given(st.lists(st.integers(500, 2000), max_size=9), st.integers(2, 5), st.integers(3000, 9000))
def test_many_short_texts_even_out_a_few_long_ones(
    long_ones: list[int], parts: int, short_ones: int
) -> None:
    lengths = [*long_ones, *(7 + place % 11 for place in range(short_ones))]
    shares = balanced_shares(lengths, parts)
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    weights = [sum(lengths[place] for place in share) for share in shares]
    assert max(weights) <= max(sum(lengths) / parts + 17, max(long_ones, default=0) + 17)
