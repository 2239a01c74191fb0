"""A run that is killed at any moment goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from clrelkt.training import Recipe, Run

KILLS = 3


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clrelkt", "train", str(recipe), "--resume"]
    command += ["--output", str(folder), "--save-form", "whole", "--device", "cpu"]
    # A checkpoint at every step, so that a kill may strike while one is written.
    command += ["--checkpoint-seconds", "0"]
    threads = str(torch.get_num_threads())
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": threads},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], folder: Path, seconds: float) -> bool:
    """Kill a run so long after it has begun to work; return whether it was at work still."""
    lock = folder / ".lock"
    before = lock.stat().st_mtime_ns if lock.exists() else None
    while process.poll() is None:
        if lock.exists() and lock.stat().st_mtime_ns != before:
            break
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_killed_and_resumed(tmp_path: Path, tiny_recipe: Recipe, finished_run: Run) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny_recipe.to_json()), encoding="utf-8")
    seconds = sum(json.loads((finished_run.folder / "timings.json").read_text()).values())
    rng = np.random.default_rng(7)
    folder = tmp_path / "run"
    struck = 0
    for _ in range(KILLS):
        struck += kill_after(start(recipe, folder), folder, rng.uniform(0, seconds / KILLS))
    last = start(recipe, folder)
    _, said = last.communicate()
    if (folder / "results.json").exists() and last.returncode:
        assert "is complete; nothing is left to resume" in said
    assert struck >= 1
    files = ["log.jsonl", "results.json"]
    files += [f"encoders/{stage.name}/model.safetensors" for stage in tiny_recipe.stages]
    for name in files:
        assert (folder / name).read_bytes() == (finished_run.folder / name).read_bytes(), said
    # What the command line adds to a run.
    assert {path.name for path in folder.iterdir()} - {"report.html"} == {
        path.name for path in finished_run.folder.iterdir()
    }
