"""Runs in processes of their own, several at a time, spread over the GPUs."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clrelkt.errors import TrainingError
from clrelkt.files import storage_errors, write_json
from clrelkt.progress import progress_bar
from clrelkt.training.recipe import Recipe
from clrelkt.training.run import RunSettings

__all__ = ["Say", "Task", "default_jobs", "run_processes", "visible_gpus"]

Say = Callable[[str], None]
"""Is told what begins and ends, a line each."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run that is to be carried out: its recipe, and settings that name its folder and seed.

    ``recipe_file`` is where the recipe is written for its process.
    """

    name: str
    recipe: Recipe
    settings: RunSettings
    recipe_file: Path


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if named is None else named.split(",")
    return [name.strip() for name in names][:count]


def default_jobs(device: str | None) -> int:
    """Return how many runs to carry out at a time where nobody says: one a GPU, else one."""
    return max(1, len(visible_gpus())) if device in (None, "cuda") else 1


def run_processes(tasks: Sequence[Task], jobs: int, say: Say | None = None) -> None:
    """Carry out all ``tasks``, ``jobs`` at a time; stopped ones go on where they were.

    Each has a GPU for itself where there are enough; the next one gets what becomes free.

    Raises:
        TrainingError: a run failed; the others are carried out all the same.
        StorageError: a recipe cannot be written.
    """
    if not tasks:
        return
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for place in _places(tasks[0].settings.device, jobs):
        free.put(place)
    for task in tasks:
        with storage_errors(task.settings.output.parent):
            task.settings.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(task.recipe_file, task.recipe.to_json())
    tell = say or (lambda line: None)
    shown = tasks[0].settings.progress
    bar = progress_bar("runs", total=len(tasks), unit="runs", shown=shown)
    with bar as advance, ThreadPoolExecutor(jobs) as pool:

        def run(task: Task) -> str | None:
            place = free.get()
            name = task.name if place is None else f"{task.name}, on GPU {place}"
            tell(f"{name}: begins")
            began = time.monotonic()
            fault = _run(task, place, jobs)
            free.put(place)
            how = "done" if fault is None else "FAILED"
            tell(f"{name}: {how} after {time.monotonic() - began:,.0f} s")
            advance(1)
            return fault

        faults = [fault for fault in pool.map(run, tasks) if fault]
    if faults:
        raise TrainingError("; ".join(faults))


def _places(device: str | None, jobs: int) -> list[str | None]:
    """Return the GPU of each run that is carried out at a time; None: what it chooses itself."""
    gpus = visible_gpus() if device in (None, "cuda") else []
    return [gpus[number % len(gpus)] if len(gpus) > 1 else None for number in range(jobs)]


def _run(task: Task, gpu: str | None, jobs: int) -> str | None:
    """Carry out a task, and return what it says where it fails."""
    environment = dict(os.environ)
    environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    command = _command(task.recipe_file, task.settings)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{task.name}: {done.stderr.strip()[-2000:]}"


def _command(recipe_file: Path, settings: RunSettings) -> list[str]:
    command = [sys.executable, "-m", "clrelkt", "train", str(recipe_file), "--resume"]
    command += ["--seed", str(settings.seed), "--split-seed", str(settings.split_seed)]
    command += ["--output", str(settings.output)]
    command += ["--checkpoint-seconds", str(settings.checkpoint_seconds)]
    if settings.chunk_tokens is not None:
        command += ["--chunk-tokens", str(settings.chunk_tokens)]
    if settings.save_form is not None:
        command += ["--save-form", settings.save_form]
    if settings.device is not None:
        command += ["--device", settings.device]
    if settings.dev_only:
        command.append("--dev-only")
    return command
