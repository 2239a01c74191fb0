"""Fetching a file: resumed where it stopped, checked, and put in place whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from clrelkt import files
from clrelkt.errors import DownloadError

__all__ = ["Progress", "copy_file", "download", "fault_of_file", "storage_errors"]

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes so far, and the bytes in all (None: not known)."""

_CHUNK = 1 << 18
_TIMEOUT = 60.0
_STORAGE_ADVICE = "Free some space, or set CLRELKT_DATA to a folder that can be written"


class _Body(Protocol):
    def read(self, amount: int, /) -> bytes: ...


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch ``url`` into ``target``; what had come before is kept beside it and resumed.

    Args:
        url: the address.
        target: the file to be; ``NAME.part`` beside it holds what has come.
        size: its length in bytes, where that is known.
        sha256: its checksum, where that is known.
        progress: called after each piece.

    Raises:
        DownloadError: it could not be fetched, or is not what was expected.
        StorageError: it could not be written.
    """
    with storage_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if _length(part) > 0 and (size is None or _length(part) > size):
        # Without a known length nothing tells whether the piece is of this very file.
        part.unlink()
    if size is None or _length(part) < size:
        _fetch(url, part, size, progress)
    fault = fault_of_file(part, size, sha256)
    if fault is not None:
        part.unlink()
        raise DownloadError(f"{url}: {fault}; it was removed, nothing was kept. {_advice()}")
    with storage_errors(target):
        part.replace(target)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into place, whole or not at all.

    Raises:
        StorageError: it could not be read or written.
    """
    with files.atomic_file(target, advice=_STORAGE_ADVICE) as temporary:
        shutil.copyfile(source, temporary)


def fault_of_file(path: Path, size: int | None, sha256: str | None) -> str | None:
    """Say what is wrong with a file's size or checksum; None when nothing is."""
    got = _length(path)
    if size is not None and got != size:
        return f"{path.name} has {got} bytes, expected {size}"
    if sha256 is not None:
        digest = _digest(path)
        if digest != sha256:
            return f"{path.name} has SHA-256 {digest}, expected {sha256}"
    return None


def storage_errors(path: Path) -> AbstractContextManager[None]:
    """Turn refusals to read or write a data folder into a StorageError that names the place."""
    return files.storage_errors(path, advice=_STORAGE_ADVICE)


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    have = _length(part)
    headers = {"User-Agent": "clrelkt"} | ({"Range": f"bytes={have}-"} if have else {})
    with _network_errors(url):
        try:
            response = urllib.request.urlopen(
                urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                part.unlink()
                return _fetch(url, part, size, progress)
            raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and response.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {have}-")
        start = have if resumed else 0
        announced = response.headers.get("Content-Length", "")
        total = start + int(announced) if announced.isdigit() else None
        _write(url, response, part, start, size if size is not None else total, progress)
    return None


def _write(
    url: str, body: _Body, part: Path, start: int, size: int | None, progress: Progress | None
) -> None:
    done = start
    with storage_errors(part), part.open("ab" if start else "wb") as file:
        while size is None or done <= size:
            with _network_errors(url):
                chunk = body.read(_CHUNK)
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(part.name.removesuffix(".part"), done, size)
    if size is not None and done < size:
        raise DownloadError(
            f"{url}: ended after {done} of {size} bytes; run the command again to go on from "
            f"there. {_advice()}"
        )


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server answered {error.code}. {_advice()}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url}: cannot be fetched ({reason}). {_advice()}") from error


def _advice() -> str:
    return "Files that you already have are taken with --from FOLDER."


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
