"""Encoders that other installed packages bring along.

A package names its encoders as entry points of the group ``clrelkt.encoders``: the name is what
``load_encoder`` is asked for, the value a function without arguments that returns the folder of a
saved encoder.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from clrelkt.errors import EncoderError

__all__ = ["GROUP", "best_encoder", "installed_encoders", "installed_folder", "known_as"]

GROUP = "clrelkt.encoders"

_BEST = "best"
_TRAINED = "muse-xquad"
_PLAIN = "muse"


def installed_encoders() -> dict[str, str]:
    """Return the names of installed encoders, each with the package that brings it."""
    found = {}
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        package = "" if point.dist is None else point.dist.name
        found[point.name] = package
    return found


def best_encoder() -> str:
    """Return what ``best`` stands for: the trained encoder where it is installed, else mUSE."""
    return _TRAINED if _TRAINED in installed_encoders() else _PLAIN


def known_as(name: str) -> str:
    """Return the name of the encoder that ``best`` stands for, and any other name as it is."""
    return best_encoder() if name == _BEST and not Path(name).is_dir() else name


def installed_folder(name: str) -> Path | None:
    """Return the folder of the installed encoder called ``name``; None where there is none.

    Raises:
        EncoderError: the package that brings it is broken.
    """
    for point in importlib.metadata.entry_points(group=GROUP, name=name):
        try:
            folder = Path(point.load()())
        except Exception as error:  # The package's own code: it may raise anything.
            raise EncoderError(
                f"the package that brings the encoder {name!r} is broken ({error}); reinstall it"
            ) from error
        return folder
    return None
