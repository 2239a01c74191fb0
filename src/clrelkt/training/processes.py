"""Runs in processes of their own, several at a time, spread over the GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clrelkt.errors import TrainingError
from clrelkt.files import storage_errors, write_json
from clrelkt.training.recipe import Recipe
from clrelkt.training.run import RunSettings

__all__ = ["Task", "run_processes"]


@dataclass(frozen=True, slots=True)
class Task:
    """A run that is to be carried out: its recipe, and settings that name its folder and seed."""

    name: str
    recipe: Recipe
    settings: RunSettings


def run_processes(tasks: Sequence[Task], jobs: int) -> None:
    """Carry out all ``tasks``, ``jobs`` at a time; stopped ones go on where they were.

    Raises:
        TrainingError: a run failed; the others are carried out all the same.
        StorageError: a recipe cannot be written.
    """
    import torch

    gpus = torch.cuda.device_count()

    def run(numbered: tuple[int, Task]) -> str | None:
        number, task = numbered
        recipe_file = task.settings.output.with_suffix(".recipe.json")
        write_json(recipe_file, task.recipe.to_json())
        environment = dict(os.environ)
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
        if gpus > 1 and task.settings.device in (None, "cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
        command = _command(recipe_file, task.settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else f"{task.name}: {done.stderr.strip()[-2000:]}"

    for folder in {task.settings.output.parent for task in tasks}:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        faults = [fault for fault in pool.map(run, enumerate(tasks)) if fault]
    if faults:
        raise TrainingError("; ".join(faults))


def _command(recipe_file: Path, settings: RunSettings) -> list[str]:
    command = [sys.executable, "-m", "clrelkt", "train", str(recipe_file), "--resume"]
    command += ["--seed", str(settings.seed), "--split-seed", str(settings.split_seed)]
    command += ["--output", str(settings.output)]
    if settings.save_form is not None:
        command += ["--save-form", settings.save_form]
    if settings.device is not None:
        command += ["--device", settings.device]
    if settings.dev_only:
        command.append("--dev-only")
    return command
