"""Files that are either there in full or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clrelkt.errors import StorageError

__all__ = ["atomic_file", "atomic_folder", "storage_errors", "write_json", "write_text"]


_ADVICE = "Free some space or name a folder that can be written"


@contextmanager
def storage_errors(path: Path, *, advice: str = _ADVICE) -> Iterator[None]:
    """Turn the system's refusals to read or write into a StorageError.

    Its message names the place, what the system said, and ``advice``.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror or error}. {advice}"
        ) from error


@contextmanager
def atomic_file(path: Path, *, advice: str = _ADVICE) -> Iterator[Path]:
    """Yield a path to write to; the file appears as ``path`` when the block ends well.

    ``advice`` ends the message of an error, as with ``storage_errors``.

    Raises:
        StorageError: it could not be written.
    """
    with storage_errors(path, advice=advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it appears as ``path`` when the block ends well.

    What stood at ``path`` before is replaced, files of other kinds included.

    Raises:
        StorageError: it could not be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)
                if file.is_file():
                    _flush(file)
            temporary.chmod(0o755)
            _swap(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.replace(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    was = old / "was"
    try:
        path.replace(was)
        new.replace(path)
    except BaseException:
        if was.exists():
            was.replace(path)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
