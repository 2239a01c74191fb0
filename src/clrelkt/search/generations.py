"""The states of an index, one after the other.

An index is a folder:

- ``index.json``: format, the encoder's fingerprint, settings; written once;
- ``generations/N.json``: which segments make up the index, and which of their documents are
  deleted; the highest number is the present state, and it appears all at once;
- ``segments/NAME/``: documents that were added together; never changed;
- ``counter``: the number of the last segment that was begun;
- ``pending.json``: what a writer has done that is in no generation yet.

A reader keeps to one generation. What no generation needs any more the next writer removes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from clrelkt.errors import SearchIndexError, StorageError
from clrelkt.files import atomic_file, storage_errors, write_json, write_text
from clrelkt.search.fingerprint import Fingerprint
from clrelkt.search.settings import IndexSettings

__all__ = ["FORMAT", "Description", "Generation", "IndexFolder", "SegmentState"]

FORMAT = 1
_DESCRIPTION = "index.json"
_PENDING = "pending.json"
_COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Description:
    """What stays the same as long as an index exists.

    ``id`` is made at random and names the index in a store outside its folder.
    """

    id: str
    encoder: Fingerprint
    settings: IndexSettings

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "format": FORMAT,
            "id": self.id,
            "encoder": self.encoder.to_json(),
            "settings": self.settings.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SegmentState:
    """A segment of a generation; ``deleted`` is the file that lists deleted documents."""

    name: str
    deleted: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A state of an index: its number, its segments in order, and where vectors are looked for.

    ``store`` is what ``IndexSettings.store`` says, or what ``clrelkt index copy`` has made of it;
    ``store_file`` names its file in ``stores/`` where it has one.
    """

    number: int
    segments: tuple[SegmentState, ...]
    store: str = "exact"
    store_file: str | None = None

    @classmethod
    def from_json(cls, number: int, record: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` has written."""
        segments = tuple(SegmentState(item["name"], item["deleted"]) for item in record["segments"])
        return cls(number, segments, record["store"], record["store_file"])

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "segments": [{"name": s.name, "deleted": s.deleted} for s in self.segments],
            "store": self.store,
            "store_file": self.store_file,
        }


class IndexFolder:
    """The files of an index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.segments = path / "segments"
        self.stores = path / "stores"
        self.lock = path / "lock"
        self._generations = path / "generations"

    def create(self, encoder: Fingerprint, settings: IndexSettings) -> Description:
        """Begin an index; what there is of an index that was begun alike is kept.

        Raises:
            StorageError: the folder has something else in it, or cannot be written.
            SearchIndexError: an index was begun there with another encoder or other settings.
        """
        with storage_errors(self.path):
            if (self.path / _DESCRIPTION).is_file():
                return self._same(encoder, settings)
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise StorageError(
                    f"{self.path} is there and is no index. Name a new or an empty folder"
                )
            for folder in (self.segments, self._generations, self.stores):
                folder.mkdir(parents=True, exist_ok=True)
        description = Description(uuid.uuid4().hex, encoder, settings)
        write_json(self.path / _DESCRIPTION, description.to_json())
        return description

    def _same(self, encoder: Fingerprint, settings: IndexSettings) -> Description:
        description = self.describe()
        if self.newest() is not None:
            raise SearchIndexError(
                f"{self.path} is an index already. Add to it with clrelkt index add, or name "
                "another folder"
            )
        if not description.encoder.is_alike(encoder) or description.settings != settings:
            raise SearchIndexError(
                f"{self.path}: an index was begun here with another encoder or other settings "
                f"({description.encoder.name}, {description.settings}). Go on with those, or name "
                "another folder"
            )
        return description

    def describe(self) -> Description:
        """Return what stays the same.

        Raises:
            SearchIndexError: the folder is no index, or one of a newer format.
        """
        record = _read_json(self.path / _DESCRIPTION, self.path)
        form = record.get("format")
        if isinstance(form, int) and form > FORMAT:
            raise SearchIndexError(
                f"{self.path}: an index of format {form}, but this clrelkt reads up to {FORMAT}; "
                "install a newer clrelkt"
            )
        try:
            return Description(
                str(record["id"]),
                Fingerprint.from_json(record["encoder"]),
                IndexSettings.from_json(record["settings"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SearchIndexError(
                f"{self.path / _DESCRIPTION}: does not describe an index ({error!r})"
            ) from error

    def newest(self) -> Generation | None:
        """Return the present state; None where a first one is still to be written."""
        numbers = self.generation_numbers()
        if not numbers:
            return None
        path = self._generation_file(numbers[-1])
        record = _read_json(path, path)
        try:
            return Generation.from_json(numbers[-1], record)
        except (KeyError, TypeError, AttributeError) as error:
            raise SearchIndexError(f"{path}: does not list segments ({error!r})") from error

    def generation_numbers(self) -> list[int]:
        """Return the numbers of the generations that are there, in order."""
        found = (path.stem for path in self._generations.glob("*.json"))
        return sorted(int(stem) for stem in found if stem.isdecimal())

    def write_generation(self, generation: Generation) -> None:
        """Make ``generation`` the present state, all at once."""
        write_json(self._generation_file(generation.number), generation.to_json())
        _sync_folder(self._generations)

    def read_deleted(self, state: SegmentState) -> np.ndarray:
        """Return the numbers of a segment's deleted documents, sorted, int32."""
        if state.deleted is None:
            return np.empty(0, np.int32)
        path = self.segments / state.name / state.deleted
        try:
            return np.fromfile(path, np.int32)
        except OSError as error:
            raise SearchIndexError(f"{path}: cannot be read ({error})") from error

    def write_deleted(self, segment: str, generation: int, numbers: np.ndarray) -> SegmentState:
        """Write which documents of a segment are deleted as of a generation."""
        name = f"deleted-{generation:06d}.bin"
        with atomic_file(self.segments / segment / name) as path:
            path.write_bytes(np.sort(numbers).astype(np.int32).tobytes())
        return SegmentState(segment, name)

    def next_segment_name(self) -> str:
        """Return a name that no segment of this index has ever had."""
        path = self.path / _COUNTER
        last = int(path.read_text(encoding="utf-8")) if path.is_file() else 0
        write_text(path, f"{last + 1}\n")
        return f"{last + 1:06d}"

    def read_pending(self) -> dict[str, Any] | None:
        """Return what a writer has left that did not come to its end."""
        path = self.path / _PENDING
        return _read_json(path, path) if path.is_file() else None

    def write_pending(self, record: Mapping[str, Any]) -> None:
        """Note what a writer has done so far."""
        write_json(self.path / _PENDING, record)

    def settle(self) -> dict[str, Any] | None:
        """Forget an operation that was killed after its last step, and return what it noted."""
        pending, newest = self.read_pending(), self.newest()
        if pending is None or newest is None:
            return None
        if not {state.name for state in newest.segments}.intersection(pending["segments"]):
            return None
        self.end_pending()
        return pending

    def end_pending(self) -> None:
        """Forget what was noted."""
        (self.path / _PENDING).unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> None:
        """Remove old generations, and all segments and stores that are not needed.

        ``keep`` names segments that are in no generation yet. Of what is removed readers keep
        the files open that they have begun with.
        """
        newest = self.newest()
        segments = set(keep)
        stores = set()
        if newest is not None:
            segments |= {state.name for state in newest.segments}
            stores.add(newest.store_file)
        for number in self.generation_numbers()[:-1]:
            self._generation_file(number).unlink(missing_ok=True)
        for path in self.segments.iterdir():
            if path.name not in segments:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.stores.iterdir():
            if path.name not in stores:
                path.unlink(missing_ok=True)
        for state in newest.segments if newest else ():
            for path in (self.segments / state.name).glob("deleted-*.bin"):
                if path.name != state.deleted:
                    path.unlink(missing_ok=True)

    def _generation_file(self, number: int) -> Path:
        return self._generations / f"{number:06d}.json"


def _read_json(path: Path, place: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SearchIndexError(f"{place} is no index: {path.name} cannot be read ({error})") from (
            error
        )
    if not isinstance(record, dict):
        raise SearchIndexError(f"{path}: expected a JSON object")
    return record


def _sync_folder(path: Path) -> None:
    import os

    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
