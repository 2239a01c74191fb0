"""Documents into an index: cut, encoded, written segment by segment, and then shown at once."""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import DataError, SearchIndexError, StorageError
from clrelkt.files import storage_errors
from clrelkt.progress import progress_bar
from clrelkt.search.compaction import compacted
from clrelkt.search.cutting import Cutter, token_counter
from clrelkt.search.documents import IndexDocument
from clrelkt.search.generations import IndexFolder, SegmentState
from clrelkt.search.publishing import publish
from clrelkt.search.segments import CutDocument, Segment, SegmentWriter
from clrelkt.search.snapshot import Snapshot

__all__ = [
    "IndexWriter",
    "WriteKind",
    "delete_documents",
    "exclusive",
    "pending_segments",
]

WriteKind = Literal["build", "add", "replace"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Documents with the vectors of their passages, and of the sentences of those."""

    documents: Sequence[CutDocument]
    passages: np.ndarray
    sentences: np.ndarray | None


_BATCH_CHARACTERS = 400_000
_FIRST_CHARACTERS = 25_000
"""The first batch is small, so that the encoder need not wait long; each later one is twice it."""

_MANY_SEGMENTS = 64
"""Where there are more, those that are not full or have many deleted documents are joined."""

_WASTED = 1 / 4

CHECKPOINT_SECONDS = 120.0
"""A segment is ended when it is so old, so that a kill loses no more."""


@contextmanager
def exclusive(folder: IndexFolder) -> Iterator[None]:
    """Keep other writers away while the block runs.

    Raises:
        StorageError: there is one at work, or the folder cannot be written.
    """
    with storage_errors(folder.lock), folder.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{folder.path}: another process is writing to this index; wait for its end"
            ) from None
        yield


class IndexWriter:
    """One operation that adds documents to an index.

    What it has done is noted a segment at a time. A writer for the same operation goes on where
    one that was killed stopped; no reader sees anything of it before its end.
    """

    def __init__(
        self,
        folder: IndexFolder,
        encoder: Encoder,
        kind: WriteKind,
        *,
        source: str = "",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        progress: bool = False,
    ) -> None:
        """Begin an operation, or find the one to go on with; the folder must be held.

        ``source`` says where the documents come from: an operation is the same if kind and
        source are.
        """
        self._folder = folder
        self._encoder = encoder
        self._kind = kind
        self._description = folder.describe()
        self._settings = self._description.settings
        self._checkpoint_seconds = checkpoint_seconds
        self._progress = progress
        self._cutter = Cutter(token_counter(encoder), self._settings)
        begun = {"kind": kind, "source": source}
        ended = folder.settle()
        self._ended = ended if _is_same(ended, begun) else None
        pending = folder.read_pending()
        self._pending: dict[str, Any] = {**begun, "segments": [], "consumed": 0, "last": None}
        if pending is not None and _is_same(pending, begun):
            self._pending = pending
        newest = folder.newest()
        self._number = newest.number if newest else 0
        folder.sweep(set(self._pending["segments"]))

    def write(self, documents: Iterable[IndexDocument]) -> int:
        """Add documents; return how many there were.

        Raises:
            DataError: a document whose id is there already (unless it is to be replaced), or
                twice in ``documents``.
            StorageError: the folder cannot be written.
        """
        if self._ended is not None:
            # It was killed when everything was done but to forget it.
            return int(self._ended["consumed"])
        present = None if self._number == 0 else Snapshot.open(self._folder)
        own = [self._open(name) for name in self._pending["segments"]]
        try:
            self._add_all(documents, present, own)
            self._commit(present, own)
        finally:
            for segment in (*own, *(present.segments if present else ())):
                segment.close()
        return int(self._pending["consumed"])

    def _add_all(
        self, documents: Iterable[IndexDocument], present: Snapshot | None, own: list[Segment]
    ) -> None:
        cut = _ahead(self._cut_batches(self._skip(documents)), "cutting")
        # One batch is cut and another written while the encoder works on the one between.
        batches = _ahead(map(self._encoded, cut), "encoding")
        bar = progress_bar("indexing", total=None, unit="passages", shown=self._progress)
        with bar as advance, closing(cut), closing(batches):
            while self._write_segment(batches, present, own, advance):
                pass

    def _cut_batches(self, documents: Iterator[IndexDocument]) -> Iterator[list[CutDocument]]:
        """Yield documents until there are characters enough for a batch, again and again."""
        batch: list[IndexDocument] = []
        characters, enough = 0, _FIRST_CHARACTERS
        for document in documents:
            batch.append(document)
            characters += len(document.text) + sum(len(t) for _, t in document.passages or ())
            if characters >= enough or len(batch) == self._settings.segment_rows:
                yield self._cutter(batch)
                batch, characters = [], 0
                enough = min(2 * enough, _BATCH_CHARACTERS)
        if batch:
            yield self._cutter(batch)

    def _skip(self, documents: Iterable[IndexDocument]) -> Iterator[IndexDocument]:
        """Pass over the documents that are in segments already."""
        consumed, last = self._pending["consumed"], self._pending["last"]
        for number, document in enumerate(documents, 1):
            if number > consumed:
                yield document
            elif number == consumed and document.id != last:
                raise SearchIndexError(
                    f"{self._folder.path}: cannot go on, for the source has changed: document "
                    f"{number} was {last!r} and is {document.id!r} now. Remove "
                    f"{self._folder.path / 'pending.json'} to begin anew"
                )

    def _write_segment(
        self,
        batches: Iterator[_Encoded],
        present: Snapshot | None,
        own: list[Segment],
        advance: Callable[[int], None],
    ) -> bool:
        """Write one segment, and tell whether there may be documents for another."""
        name = self._folder.next_segment_name()
        writer = SegmentWriter(self._folder.segments / name, self._settings)
        more = False
        try:
            more = self._fill(writer, batches, present, own, advance)
        finally:
            # What was encoded before a document with a fault is kept: it need not be done again.
            if writer.document_ids and not writer.failed:
                writer.finish()
                self._note(name, writer)
                own.append(self._open(name))
            else:
                writer.abandon()
        return more

    def _fill(
        self,
        writer: SegmentWriter,
        batches: Iterator[_Encoded],
        present: Snapshot | None,
        own: Sequence[Segment],
        advance: Callable[[int], None],
    ) -> bool:
        """Write until the segment is full or old enough, and tell whether that is why it ends."""
        began = time.monotonic()
        for batch in batches:
            documents = [cut.document for cut in batch.documents]
            self._check_ids(documents, writer.document_ids, own, present)
            before = writer.rows
            writer.add(batch.documents, batch.passages, batch.sentences)
            advance(writer.rows - before)
            full = writer.rows >= self._settings.segment_rows
            if full or time.monotonic() - began > self._checkpoint_seconds:
                return True
        return False

    def _note(self, name: str, writer: SegmentWriter) -> None:
        self._pending["segments"].append(name)
        self._pending["consumed"] += len(writer.document_ids)
        self._pending["last"] = next(reversed(writer.document_ids))
        self._folder.write_pending(self._pending)

    def _encoded(self, documents: Sequence[CutDocument]) -> _Encoded:
        passages = [passage for cut in documents for passage in cut.passages]
        texts = [passage.text for passage in passages]
        if self._settings.sentences:
            texts += [
                passage.text[span.start : span.stop].strip()
                for passage in passages
                if len(passage.sentences) > 1
                for span in passage.sentences
            ]
        vectors = self._encoder.encode(texts, "passage")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            text = texts[int(np.flatnonzero(~finite)[0])]
            raise DataError(f"encoder {self._encoder.name!r} gives no numbers for {text[:60]!r}")
        sentences = vectors[len(passages) :] if self._settings.sentences else None
        return _Encoded(documents, vectors[: len(passages)], sentences)

    def _open(self, name: str) -> Segment:
        return Segment(
            self._folder.segments / name,
            self._description.encoder.dimension,
            np.empty(0, np.int32),
            self._settings,
        )

    def _check_ids(
        self,
        batch: Sequence[IndexDocument],
        seen: Collection[str],
        own: Sequence[Segment],
        present: Snapshot | None,
    ) -> None:
        ids = [document.id for document in batch]
        batch_ids = Counter(ids)
        known = {id_ for segment in own for id_ in segment.find(ids)}
        there = present.find(ids) if present is not None and self._kind == "add" else {}
        for document in batch:
            place = f"{document.place}: " if document.place else ""
            if document.id in seen or document.id in known or batch_ids[document.id] > 1:
                raise DataError(
                    f"{place}id {document.id!r} stands more than once in the source; ids must be "
                    "unique"
                )
            if document.id in there:
                raise DataError(
                    f"{place}document {document.id!r} is in {self._folder.path} already; to put "
                    "new ones in the place of old ones use clrelkt index add --replace"
                )

    def _commit(self, present: Snapshot | None, own: Sequence[Segment]) -> None:
        number = self._number + 1
        states = list(present.generation.segments) if present else []
        if present is not None and self._kind == "replace":
            states = _without(self._folder, present, own, number)
        states += [SegmentState(segment.name) for segment in own]
        store = present.generation.store if present else self._settings.store
        publish(self._folder, states, store, progress=self._progress)
        self._folder.end_pending()
        if len(states) > _MANY_SEGMENTS:
            self._compact(store)
        self._folder.sweep(set())

    def _compact(self, store: str) -> None:
        snapshot = Snapshot.open(self._folder)
        states = compacted(self._folder, snapshot, wasted=_WASTED)
        snapshot.close()
        if len(states) < len(snapshot.segments):
            publish(self._folder, states, store, progress=self._progress)


def _is_same(noted: Mapping[str, Any] | None, begun: Mapping[str, str]) -> bool:
    return noted is not None and all(noted[key] == value for key, value in begun.items())


def _without(
    folder: IndexFolder, present: Snapshot, own: Sequence[Segment], number: int
) -> list[SegmentState]:
    """Return the present segments without the documents that ``own`` has too."""
    doomed: dict[int, list[int]] = {}
    for segment in own:
        for first in range(0, segment.documents, 10_000):
            numbers = range(first, min(first + 10_000, segment.documents))
            ids = segment.ids(numbers.start, numbers.stop)
            for position, old in present.find(ids).values():
                doomed.setdefault(position, []).append(old)
    return _states(folder, present, doomed, number)


def _states(
    folder: IndexFolder, present: Snapshot, doomed: dict[int, list[int]], number: int
) -> list[SegmentState]:
    states: list[SegmentState | None] = list(present.generation.segments)
    for position, numbers in doomed.items():
        segment = present.segments[position]
        deleted = np.union1d(segment.deleted, np.array(numbers, np.int32))
        states[position] = (
            folder.write_deleted(segment.name, number, deleted)
            if len(deleted) < segment.documents
            else None
        )
    return [state for state in states if state is not None]


def delete_documents(folder: IndexFolder, ids: Sequence[str]) -> int:
    """Delete documents by their ids, all or none; return the new generation's number.

    The folder must be held.

    Raises:
        DataError: there is no document of that id.
    """
    present = Snapshot.open(folder)
    try:
        wanted = list(dict.fromkeys(ids))
        found = present.find(wanted)
        missing = [id_ for id_ in wanted if id_ not in found]
        if missing:
            raise DataError(
                f"{folder.path} has no document {missing[0]!r}"
                + (f" (nor {len(missing) - 1} more)" if len(missing) > 1 else "")
                + "; nothing was deleted"
            )
        doomed: dict[int, list[int]] = {}
        for position, number in found.values():
            doomed.setdefault(position, []).append(number)
        old = present.generation
        states = _states(folder, present, doomed, old.number + 1)
        return publish(folder, states, old.store).number
    finally:
        present.close()


def pending_segments(folder: IndexFolder) -> set[str]:
    """Return the segments that an unfinished operation has written."""
    pending = folder.read_pending()
    return set(pending["segments"]) if pending else set()


def _ahead(items: Iterator[_Item], name: str) -> Generator[_Item, None, None]:
    """Yield items of which the next is made meanwhile, in another thread."""
    with ThreadPoolExecutor(1, name) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item
