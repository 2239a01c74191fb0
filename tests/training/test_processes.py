from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from clrelkt.errors import TrainingError
from clrelkt.training import Recipe, RunSettings, processes
from clrelkt.training.processes import Task, default_jobs, run_processes, visible_gpus

PROGRAM = """
import os, sys, time
from pathlib import Path
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
gpu = os.environ["CUDA_VISIBLE_DEVICES"]
# The first one goes on until all others, which follow each other on the other GPU, are done.
while seed == 0 and len(list(folder.glob("*.txt"))) < 3:
    time.sleep(0.01)
(folder / f"{seed}.txt").write_text(gpu)
sys.exit("error: broken" if seed == 2 else 0)
"""


@pytest.fixture
def tasks(tmp_path: Path, tiny_recipe: Recipe) -> list[Task]:
    return [
        Task(
            f"seed {seed}",
            tiny_recipe,
            RunSettings(tmp_path / f"seed-{seed}", seed=seed),
            tmp_path / "recipe.json",
        )
        for seed in range(4)
    ]


def test_the_next_run_takes_the_gpu_that_is_free(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["3", "7"])
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    monkeypatch.setattr(processes, "_command", lambda _, own: [*command, str(own.seed)])
    said: list[str] = []
    with pytest.raises(TrainingError, match=r"^seed 2: error: broken$"):
        run_processes(tasks, 2, said.append)
    used = [(tmp_path / f"{seed}.txt").read_text() for seed in range(4)]
    others = {"3": "7", "7": "3"}[used[0]]
    assert used[1:] == [others] * 3
    assert f"seed 0, on GPU {used[0]}: begins" in said
    assert sum("done after" in line for line in said) == 3
    (failed,) = (line for line in said if "FAILED" in line)
    assert failed.startswith(f"seed 2, on GPU {others}")
    assert (tmp_path / "recipe.json").exists()


def test_more_runs_than_gpus_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["3", "7"])
    assert processes._places(None, 5) == ["3", "7", "3", "7", "3"]
    assert processes._places("cpu", 2) == [None, None]
    assert default_jobs(None) == 2
    assert default_jobs("cpu") == default_jobs("cuda:1") == 1


def test_gpus_go_by_the_names_that_the_user_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
