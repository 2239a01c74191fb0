"""Whether kernels written in Triton can run, and where."""

from __future__ import annotations

import functools
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch

__all__ = ["has_kernels", "on_device"]


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether Triton is there and knows the GPU ``device``: one of 2020 or later."""
    # Triton builds what starts its kernels with a compiler for C.
    compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
    return (
        find_spec("triton") is not None
        and any(shutil.which(name) for name in compilers)
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make ``device`` the one that kernels are started on.

    PyTorch knows by a tensor where to work, Triton does not.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
