"""What a result was computed with: versions, hardware, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_environment"]

_PACKAGES = ("clrelkt", "torch", "numpy", "bm25s", "sentencepiece", "icu4py", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and packages, the hardware, and the commit of the source tree."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hardware": _hardware(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def _commit() -> str | None:
    """Return the commit, with ``+`` behind it where the tree differs; None outside a checkout."""
    folder = Path(__file__).parent
    named = os.environ.get("CLRELKT_COMMIT")
    if named:
        return named
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
