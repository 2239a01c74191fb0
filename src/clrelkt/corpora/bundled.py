"""The corpus that comes with clrelkt: short documents, and questions in nine languages."""

from __future__ import annotations

from pathlib import Path

from clrelkt.corpora.model import Corpus
from clrelkt.corpora.parallel import read_parallel

__all__ = ["bundled_folder", "load_bundled"]


def bundled_folder() -> Path:
    """Return the folder of the bundled corpus."""
    return Path(__file__).with_name("bundled")


def load_bundled() -> Corpus:
    """Read the bundled corpus; nothing is downloaded."""
    return read_parallel(bundled_folder(), name="bundled", complete=True)
