"""Encoders to and from a model hub, by way of huggingface_hub.

Which hub, who asks and through which proxy is huggingface_hub's to settle: ``HF_ENDPOINT``,
``HF_TOKEN``, ``hf auth login``.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.errors import DownloadError, EncoderError, MissingExtraError, StorageError
from clrelkt.files import atomic_folder, storage_errors

__all__ = ["SAFE_FILES", "pull", "push"]

SAFE_FILES = (
    "*.json",
    "*.md",
    "*.model",
    "*.onnx",
    "*.onnx.data",
    "*.safetensors",
    "*.spm",
    "*.txt",
)
"""What ``pull`` takes: files that cannot carry code."""


def push(
    folder: Path, repository: str, *, private: bool = False, message: str | None = None
) -> str:
    """Upload the encoder in ``folder`` to ``repository`` (OWNER/NAME), which is made if need be.

    Returns:
        The address of the commit.

    Raises:
        EncoderError: the folder is no encoder.
        DownloadError: the hub refuses, or cannot be reached.
        MissingExtraError: huggingface_hub is not installed.
    """
    if not (folder / DESCRIPTION_FILE).is_file():
        raise EncoderError(
            f"{folder} is no encoder: it has no {DESCRIPTION_FILE}. clrelkt export writes a folder "
            "that can be pushed"
        )
    hub = _hub()
    with _hub_errors(repository):
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message=message or f"Encoder {folder.name}",
            ignore_patterns=[".*"],
        )
    return str(commit.commit_url)


def pull(repository: str, folder: Path, *, revision: str | None = None) -> None:
    """Download the encoder of ``repository`` (OWNER/NAME) to ``folder``, all of it or nothing.

    Files that could carry code (pickles, Python) are left behind.

    Raises:
        DownloadError: there is no such repository, or the hub cannot be reached.
        EncoderError: the repository holds no encoder.
        MissingExtraError: huggingface_hub is not installed.
        StorageError: it could not be written, or ``folder`` holds something else.
    """
    with storage_errors(folder):
        known = (folder / DESCRIPTION_FILE).is_file()
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not known):
            raise StorageError(
                f"{folder} is there and is no encoder: pulling would remove it. Name another folder"
            )
    hub = _hub()
    with atomic_folder(folder) as target:
        with _hub_errors(repository):
            hub.snapshot_download(
                repository,
                revision=revision,
                local_dir=str(target),
                allow_patterns=list(SAFE_FILES),
            )
        _forget_download(target)
        if not (target / DESCRIPTION_FILE).is_file():
            raise EncoderError(
                f"{repository} holds no encoder of clrelkt: it has no {DESCRIPTION_FILE}"
            )


def _hub() -> Any:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    if not sys.stderr.isatty():
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    return hub


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line."""
    errors = importlib.import_module("huggingface_hub.errors")
    # The root of its HTTP errors is that of the HTTP library that it has chosen.
    unreachable = (errors.HTTPError, errors.OfflineModeIsEnabled, FileNotFoundError)
    try:
        yield
    except errors.HFValidationError as error:
        raise DownloadError(f"{repository!r} is no name of a repository: {error}") from error
    except unreachable as error:
        said = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise DownloadError(
            f"{repository}: {said}. Check the name, the connection and who you are (hf auth whoami)"
        ) from error


def _forget_download(folder: Path) -> None:
    """Remove what huggingface_hub keeps beside the files to go on from."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
