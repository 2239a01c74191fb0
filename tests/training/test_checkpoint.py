from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from clrelkt.errors import StorageError, TrainingError
from clrelkt.training.checkpoint import (
    Checkpoint,
    Position,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)

SmallFiles = Callable[[int], AbstractContextManager[None]]


def checkpoint(step: int, numbers: int = 10) -> Checkpoint:
    tensors = {
        "weights": torch.linspace(0, 1, numbers) ** step,
        "examples": torch.arange(6).reshape(2, 3),
    }
    return Checkpoint(Position(1, 2, 3, step, 5), {"best": 0.1 + 0.2, "bad": step}, tensors)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return (
        one.position == other.position
        and one.progress == other.progress
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    for step in (1, 2):
        write_checkpoint(tmp_path, checkpoint(step))
        found = read_checkpoint(tmp_path)
        assert found is not None
        assert same(found, checkpoint(step))
        # The one before it is gone.
        assert len(list(tmp_path.iterdir())) == 2
    clear_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []
    clear_checkpoints(tmp_path)


def test_what_was_not_named_yet_does_not_count(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / "checkpoint-1-2.safetensors").write_bytes(b"a kill came before the index")
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert same(found, checkpoint(1))
    write_checkpoint(tmp_path, checkpoint(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-1-2.safetensors",
        "checkpoint.json",
    ]


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, small_files: SmallFiles) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    with small_files(20_000), pytest.raises(StorageError, match="too large"):
        write_checkpoint(tmp_path, checkpoint(2, numbers=100_000))
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert same(found, checkpoint(1))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["no tensors", "cut tensors", "no JSON", "no position", "list"])
def test_damage(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    index, tensors = tmp_path / "checkpoint.json", tmp_path / "checkpoint-1-1.safetensors"
    if damage == "no tensors":
        tensors.unlink()
    elif damage == "cut tensors":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif damage == "no JSON":
        index.write_text("{")
    elif damage == "no position":
        index.write_text(json.dumps({"tensors": tensors.name, "progress": {}}))
    else:
        index.write_text("[]")
    with pytest.raises(
        TrainingError, match=r"checkpoint.json: the checkpoint cannot be read .*new"
    ):
        read_checkpoint(tmp_path)
