"""A training run's state on disk, so that a kill at any moment loses nothing that counts.

A checkpoint is a safetensors file (parameters, Adam's moments, the stage's best encoder, the
epoch's examples) and ``checkpoint.json``, which names it. The JSON file is replaced last and
atomically: it always names a whole file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clrelkt.encoders.tensors import read_tensors, write_tensors
from clrelkt.errors import EncoderError, TrainingError
from clrelkt.files import atomic_file, write_json

__all__ = ["Checkpoint", "Position", "clear_checkpoints", "read_checkpoint", "write_checkpoint"]

_INDEX = "checkpoint.json"
_PATTERN = "checkpoint-*.safetensors"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands.

    The stage, the epoch and the next batch in it (all from 0), the steps taken in the stage, and
    how many lines of the log are behind it.
    """

    stage: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    log_lines: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: where it stands, what dev said so far, and all tensors."""

    position: Position
    progress: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to ``folder`` and remove the one before it.

    Raises:
        StorageError: it could not be written; the one before it is still there.
    """
    position = checkpoint.position
    name = f"checkpoint-{position.stage}-{position.step}.safetensors"
    with atomic_file(folder / name) as temporary:
        write_tensors(temporary, checkpoint.tensors)
    write_json(
        folder / _INDEX,
        {
            "tensors": name,
            "position": asdict(position),
            "progress": checkpoint.progress,
        },
    )
    for path in folder.glob(_PATTERN):
        if path.name != name:
            path.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in ``folder``, or None where there is none.

    Raises:
        TrainingError: there is one, but it cannot be read.
    """
    index = folder / _INDEX
    if not index.exists():
        return None
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        tensors = read_tensors(folder / record["tensors"])
        return Checkpoint(Position(**record["position"]), record["progress"], tensors)
    except (OSError, ValueError, KeyError, TypeError, EncoderError) as error:
        raise TrainingError(
            f"{index}: the checkpoint cannot be read ({error}); start the run anew in another "
            "folder"
        ) from error


def clear_checkpoints(folder: Path) -> None:
    """Remove the checkpoint, when a run is complete."""
    (folder / _INDEX).unlink(missing_ok=True)
    for path in folder.glob(_PATTERN):
        path.unlink(missing_ok=True)
