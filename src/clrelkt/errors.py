"""Everything that clrelkt raises on purpose.

ClrelktError
├── DataError            a file or a record that cannot be used as it is
│   └── CorpusError      one or more faults in a corpus, each with its file and record
├── UnknownNameError     a corpus, recipe, encoder, language or stage that does not exist
├── SettingsError        a recipe or an option with a value that cannot be
├── EncoderError         a folder that is no encoder, or one of a newer format or another dimension
├── DownloadError        a file that could not be fetched, or whose checksum is wrong
├── SearchIndexError     a folder that is no index, or one of a newer format or another encoder
├── TrainingError        a loss that is no number, nothing to train on, no way to resume
│   └── LostProcessError another process of the same run has ended
├── StorageError         a folder that cannot be written, a full disk
└── MissingExtraError    an optional dependency that is not installed

Each message says what was got, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ClrelktError",
    "CorpusError",
    "DataError",
    "DownloadError",
    "EncoderError",
    "Fault",
    "LostProcessError",
    "MissingExtraError",
    "SearchIndexError",
    "SettingsError",
    "StorageError",
    "TrainingError",
    "UnknownNameError",
]


class ClrelktError(Exception):
    """The root of all errors that clrelkt raises on purpose."""


class DataError(ClrelktError):
    """A file or a record that cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a corpus: the file, the record within it, and what is wrong with it."""

    file: str
    record: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.record}" if self.record else self.file
        return f"{place}: {self.message}"


class CorpusError(DataError):
    """A corpus with faults; ``faults`` holds every one that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        first = str(self.faults[0])
        more = len(self.faults) - 1
        super().__init__(
            first if more == 0 else f"{first} (and {more} more; clrelkt data check lists them)"
        )


class UnknownNameError(ClrelktError):
    """A corpus, recipe, encoder, language or stage that does not exist."""


class SettingsError(ClrelktError):
    """A recipe or an option with a value that cannot be."""


class EncoderError(ClrelktError):
    """A folder that is no encoder, or an encoder that does not fit."""


class DownloadError(ClrelktError):
    """A file that could not be fetched, or whose checksum is wrong."""


class SearchIndexError(ClrelktError):
    """A folder that is no index, or an index that does not fit."""


class TrainingError(ClrelktError):
    """A training run that cannot go on."""


class LostProcessError(TrainingError):
    """A run of several processes of which another one has ended."""


class StorageError(ClrelktError):
    """A folder that cannot be written, or a disk that is full."""


class MissingExtraError(ClrelktError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed. Install it with: pip install 'clrelkt[{extra}]'"
        )
