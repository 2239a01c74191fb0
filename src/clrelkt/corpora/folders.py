"""Where corpora and weights lie on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from clrelkt.errors import StorageError

__all__ = ["cache_root", "data_root", "data_roots", "find_data", "has_content", "writable_folder"]


def cache_root() -> Path:
    """Return ``clrelkt`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "clrelkt"


def data_root() -> Path:
    """Return the folder that ``CLRELKT_DATA`` names, else the cache folder."""
    named = os.environ.get("CLRELKT_DATA")
    return Path(named).expanduser() if named else cache_root()


def data_roots() -> tuple[Path, ...]:
    """Return the folders that are looked into, in order: the data folder, then the cache."""
    return tuple(dict.fromkeys((data_root(), cache_root())))


def find_data(name: str) -> Path | None:
    """Return the file or folder ``name`` in the first of the data folders that has it."""
    return next((root / name for root in data_roots() if has_content(root / name)), None)


def has_content(path: Path) -> bool:
    """Tell whether a path is a file, or a folder with more in it than unfinished downloads."""
    if not path.is_dir():
        return path.is_file()
    return any(child.suffix != ".part" for child in path.iterdir())


def writable_folder(name: str) -> Path:
    """Return ``name`` in the first of the data folders that can be written; it exists then.

    A folder without any write permission is left alone, even by a user whom the system lets.

    Raises:
        StorageError: none of them can be written.
    """
    problems = []
    for root in data_roots():
        folder = root / name
        if any(_is_read_only(path) for path in (root, folder)):
            problems.append(f"{folder}: is read-only")
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            problems.append(f"{folder}: {error.strerror or error}")
    raise StorageError(
        f"no folder for data can be written ({'; '.join(problems)}); "
        "set CLRELKT_DATA to a folder that can"
    )


def _is_read_only(path: Path) -> bool:
    return path.is_dir() and not path.stat().st_mode & 0o222
