"""Tensors in safetensors files."""

from __future__ import annotations

from pathlib import Path

import torch

from clrelkt.errors import EncoderError, StorageError

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write named tensors to ``path``.

    Raises:
        StorageError: it could not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, str(path))
    except (OSError, SafetensorError) as error:
        # safetensors wraps the system's refusal, so that it is no OSError.
        raise StorageError(
            f"{path}: {error}. Free some space or name a folder that can be written"
        ) from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the named tensors of a file.

    Raises:
        EncoderError: it is missing, cut short, or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path}: tensors cannot be read ({error})") from error
