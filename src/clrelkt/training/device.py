"""Where a run computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clrelkt.errors import SettingsError

__all__ = ["choose_device", "choose_devices", "matrix_precision"]


def choose_device(name: str | None) -> torch.device:
    """Return the device called ``name``, or the GPU where there is one, else the CPU.

    Must be called before the GPU is first used: ragged batches differ in size at every step, and
    only expandable segments keep torch's cache of GPU memory from growing with every new size.

    Raises:
        SettingsError: there is no such device here.
    """
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"device {name}: torch finds no CUDA device here; use cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device {name!r} is not known: cpu or cuda expected") from error


def choose_devices(name: str | None, gpus: int | None) -> list[torch.device]:
    """Return so many devices of the kind that ``choose_device(name)`` has; None is one.

    On the CPU any number will do: they share it.

    Raises:
        SettingsError: there is no such device here, there are fewer GPUs, or ``name`` is a single
            one of them.
    """
    device = choose_device(name)
    if gpus is None or gpus == 1:
        return [device]
    if device.index is not None:
        raise SettingsError(
            f"device {name} is a single one, but {gpus} are asked for: leave out --device or --gpus"
        )
    if name == "cpu":
        return [device] * gpus
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > found:
        raise SettingsError(
            f"gpus {gpus}: torch finds {found} here. Ask for as many as there are, or share "
            "the CPU with --device cpu"
        )
    return [torch.device("cuda", number) for number in range(gpus)]


@contextmanager
def matrix_precision(device: torch.device) -> Iterator[None]:
    """Let a GPU's matrix units round to TF32 while the block runs."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
