"""Many small segments become few, and deleted documents go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clrelkt.search.documents import IndexDocument
from clrelkt.search.generations import IndexFolder, SegmentState
from clrelkt.search.keywords import WORDS
from clrelkt.search.segments import CutDocument, CutPassage, Segment, SegmentWriter
from clrelkt.search.settings import IndexSettings
from clrelkt.search.snapshot import Snapshot

__all__ = ["compacted"]

_BATCH = 256
"""Documents that are copied at a time."""


def compacted(
    folder: IndexFolder, snapshot: Snapshot, *, wasted: float = 0.0
) -> tuple[SegmentState, ...]:
    """Write small segments that follow each other, and those with deletions, together.

    ``wasted`` is the share of deleted documents that a full segment may keep. Return the segments
    that take the place of the snapshot's. The folder must be held.
    """
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
        if (
            len(segment) < settings.segment_rows
            or len(segment.deleted) > wasted * segment.documents
        ):
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
