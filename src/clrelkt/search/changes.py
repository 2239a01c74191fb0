"""Changes of an index that need no encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clrelkt.search.documents import IndexDocument
from clrelkt.search.generations import IndexFolder, SegmentState
from clrelkt.search.keywords import WORDS
from clrelkt.search.publishing import publish
from clrelkt.search.segments import CutDocument, CutPassage, Segment, SegmentWriter
from clrelkt.search.settings import IndexSettings
from clrelkt.search.snapshot import Snapshot
from clrelkt.search.stores import check_store
from clrelkt.search.writing import (
    delete_documents,
    exclusive,
    pending_segments,
)

__all__ = ["compact_index", "copy_to_store", "delete_from"]

_BATCH = 256
"""Documents that are copied at a time."""


def delete_from(path: str | Path, ids: Sequence[str]) -> int:
    """Delete documents by their ids, all of them or none; return the index's new version.

    Raises:
        DataError: there is no document of that id.
    """
    folder = IndexFolder(Path(path))
    folder.describe()
    with exclusive(folder):
        version = delete_documents(folder, ids)
        folder.sweep(pending_segments(folder))
    return version


def copy_to_store(path: str | Path, store: str, *, progress: bool = False) -> int:
    """Copy an index's vectors to a store, search there from then on, and return its version.

    Raises:
        SettingsError: there is no such store.
        MissingExtraError: what it needs is not installed.
        SearchIndexError: a server does not answer, or the folder is no index.
    """
    check_store(store)
    folder = IndexFolder(Path(path))
    folder.describe()
    with exclusive(folder):
        snapshot = Snapshot.open(folder)
        snapshot.close()
        states = snapshot.generation.segments
        version = publish(folder, states, store, progress=progress).number
        folder.sweep(pending_segments(folder))
    return version


def compact_index(path: str | Path) -> int:
    """Join an index's segments and drop deleted documents; return its version.

    An index of one segment, or of full ones, without deleted documents stays as it is.
    """
    folder = IndexFolder(Path(path))
    folder.describe()
    with exclusive(folder):
        folder.sweep(pending_segments(folder))
        snapshot = Snapshot.open(folder)
        try:
            before = snapshot.generation
            states = _compacted(folder, snapshot)
            if states == before.segments:
                return before.number
            version = publish(folder, states, before.store).number
        finally:
            snapshot.close()
        folder.sweep(pending_segments(folder))
    return version


def _compacted(folder: IndexFolder, snapshot: Snapshot) -> tuple[SegmentState, ...]:
    """Write small segments that follow each other, and those with deleted documents, together."""
    settings = snapshot.description.settings
    states: list[SegmentState] = []
    run: list[int] = []

    def end_run() -> None:
        if len(run) == 1 and not len(snapshot.segments[run[0]].deleted):
            states.append(snapshot.generation.segments[run[0]])
        elif run:
            segments = [snapshot.segments[place] for place in run]
            states.extend(_rewritten(folder, segments, settings))
        run.clear()

    for place, segment in enumerate(snapshot.segments):
        if len(segment) < settings.segment_rows or len(segment.deleted):
            run.append(place)
            continue
        end_run()
        states.append(snapshot.generation.segments[place])
    end_run()
    return tuple(states)


def _rewritten(
    folder: IndexFolder, segments: Sequence[Segment], settings: IndexSettings
) -> Iterator[SegmentState]:
    writer: SegmentWriter | None = None
    name = ""
    for segment in segments:
        numbers = np.flatnonzero(segment.present)
        for start in range(0, len(numbers), _BATCH):
            if writer is None:
                name = folder.next_segment_name()
                writer = SegmentWriter(folder.segments / name, settings)
            _copy(segment, numbers[start : start + _BATCH], writer, settings)
            if writer.rows >= settings.segment_rows:
                writer.finish()
                yield SegmentState(name)
                writer = None
    if writer is not None:
        writer.finish()
        yield SegmentState(name)


def _copy(
    segment: Segment, numbers: np.ndarray, writer: SegmentWriter, settings: IndexSettings
) -> None:
    documents: list[CutDocument] = []
    rows: list[int] = []
    sentences: list[np.ndarray] = [np.empty((0, segment.block.halves.shape[1]), np.float32)]
    for number in numbers.tolist():
        passages = []
        first, stop = segment.rows_of(number)
        for row in range(first, stop):
            stored = segment.row(row)
            words = WORDS.words([stored.text])[0] if settings.words else None
            passages.append(CutPassage(stored.passage_id, stored.text, stored.sentences, words))
            rows.append(row)
            place = stored.sentence_vectors
            if place is not None:
                scales = segment.sentence_scales[place]
                sentences.append(segment.sentence_vectors[place] * scales[:, None])
        whole = segment.document(number)
        document = IndexDocument(
            whole.id, title=whole.title, language=whole.language, metadata=whole.metadata
        )
        documents.append(CutDocument(document, whole.language, tuple(passages)))
    vectors = segment.block.halves[rows].astype(np.float32)
    writer.add(documents, vectors, np.concatenate(sentences) if settings.sentences else None)
