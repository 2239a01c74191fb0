"""One generation of an index, open to be read."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from clrelkt.errors import SearchIndexError
from clrelkt.search.generations import Description, Generation, IndexFolder
from clrelkt.search.hits import Scalar, StoredDocument, Where
from clrelkt.search.segments import Segment, StoredRow, hash_ids

__all__ = ["Filter", "PlacedRow", "Snapshot"]

_TRIES = 5
_REMEMBERED = 16

Filter = tuple[tuple[str, ...] | None, tuple[tuple[str, tuple[Scalar, ...]], ...]]
"""Languages, and keys with the values that metadata must have."""


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A passage as it was read, the segment that it is in, and its row there."""

    segment: Segment
    row: int
    stored: StoredRow


class Snapshot:
    """The segments of one generation; rows are numbered through all of them."""

    def __init__(
        self, generation: Generation, segments: Sequence[Segment], description: Description
    ) -> None:
        self.generation = generation
        self.segments = tuple(segments)
        self.description = description
        sizes = [len(segment) for segment in segments]
        self.starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64)
        documents = [segment.documents for segment in segments]
        self.document_starts = np.concatenate(([0], np.cumsum(documents, dtype=np.int64)))
        self.rows = int(self.starts[-1])
        self.documents = int(sum(segment.present.sum() for segment in segments))
        self._masks: OrderedDict[Filter, np.ndarray | None] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: IndexFolder) -> Snapshot:
        """Open the newest generation.

        Raises:
            SearchIndexError: there is no index, it is unfinished, or its files are damaged.
        """
        description = folder.describe()
        for attempt in range(_TRIES):
            generation = folder.newest()
            if generation is None:
                raise SearchIndexError(
                    f"{folder.path}: this index is unfinished. Go on with the command that began it"
                )
            opened: list[Segment] = []
            try:
                for state in generation.segments:
                    deleted = folder.read_deleted(state)
                    opened.append(
                        Segment(
                            folder.segments / state.name,
                            description.encoder.dimension,
                            deleted,
                            description.settings,
                        )
                    )
                return cls(generation, opened, description)
            except SearchIndexError:
                for segment in opened:
                    segment.close()
                # A writer may have ended meanwhile, and removed what this generation needs.
                newest = folder.newest()
                unchanged = newest is None or newest.number == generation.number
                if unchanged or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    @cached_property
    def passages(self) -> int:
        """How many passages belong to documents that are not deleted."""
        return sum(int(s.present[s.owners].sum()) for s in self.segments)

    @cached_property
    def languages(self) -> Mapping[str, int]:
        """The number of documents by language."""
        found: Counter[str] = Counter()
        for segment in self.segments:
            found.update(segment.languages())
        return {code: found[code] for code in sorted(found) if found[code]}

    def info(self, folder: IndexFolder) -> dict[str, Any]:
        """Return what there is to say about the index, as a JSON object."""
        encoder = self.description.encoder
        return {
            "folder": str(folder.path),
            "version": self.generation.number,
            "documents": self.documents,
            "passages": self.passages,
            "languages": dict(self.languages),
            "segments": len(self.segments),
            "store": self.generation.store,
            "encoder": encoder.name,
            "weights": encoder.weights,
            "dimension": encoder.dimension,
            "settings": self.description.settings.to_json(),
            "bytes": sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file()),
        }

    def close(self) -> None:
        """Close the segments."""
        for segment in self.segments:
            segment.close()

    def place(self, row: int) -> tuple[Segment, int]:
        """Return the segment that a row is in, and its number there."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[number], row - int(self.starts[number])

    def read(self, rows: Iterable[int]) -> dict[int, PlacedRow]:
        """Return the passages at ``rows``; each is read once."""
        distinct = np.array(sorted(set(rows)), np.int64)
        limits = np.searchsorted(distinct, self.starts).tolist()
        found: dict[int, PlacedRow] = {}
        for number, (start, stop) in enumerate(pairwise(limits)):
            segment, first = self.segments[number], int(self.starts[number])
            read = segment.read((distinct[start:stop] - first).tolist())
            found.update({first + row: PlacedRow(segment, row, read[row]) for row in read})
        return found

    def owners(self, rows: np.ndarray) -> np.ndarray:
        """Return the document that each row belongs to, numbered through all segments."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        owners = np.empty(len(rows), np.int64)
        for number in np.unique(numbers):
            mine = numbers == number
            own = self.segments[number].owners[rows[mine] - self.starts[number]]
            owners[mine] = own + self.document_starts[number]
        return owners

    def find(self, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the segment and the number there of those documents that are there, by id."""
        hashes = hash_ids(ids)
        return {
            id_: (position, number)
            for position, segment in enumerate(self.segments)
            for id_, number in segment.find(ids, hashes).items()
        }

    def iterate(
        self, languages: Sequence[str] | None, where: Where | None, first: int
    ) -> Iterator[StoredDocument]:
        """Yield documents in order, from the ``first`` of those that fit on."""
        for segment in self.segments:
            numbers = np.flatnonzero(segment.numbers(languages, where))
            yield from (segment.document(int(number)) for number in numbers[first:])
            first = max(0, first - len(numbers))

    def allowed(self, chosen: Filter) -> np.ndarray | None:
        """Return which rows a search may find, shape (rows,), bool; None is every one.

        Those of the last filters are remembered.
        """
        with self._lock:
            if chosen in self._masks:
                self._masks.move_to_end(chosen)
                return self._masks[chosen]
        mask = self._allowed(chosen)
        with self._lock:
            self._masks[chosen] = mask
            while len(self._masks) > _REMEMBERED:
                self._masks.popitem(last=False)
        return mask

    def _allowed(self, chosen: Filter) -> np.ndarray | None:
        languages, where = chosen
        if languages is None and not where and not any(len(s.deleted) for s in self.segments):
            return None
        parts = [
            segment.numbers(languages, dict(where))[segment.owners] for segment in self.segments
        ]
        return np.concatenate(parts) if parts else np.empty(0, bool)
