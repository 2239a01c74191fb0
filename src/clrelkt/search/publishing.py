"""A new generation: its vectors into its store, and then shown at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clrelkt.progress import progress_bar
from clrelkt.search.generations import Generation, IndexFolder, SegmentState
from clrelkt.search.segments import Segment
from clrelkt.search.stores.choice import is_faiss
from clrelkt.search.stores.faiss import write_faiss
from clrelkt.search.stores.milvus import write_milvus
from clrelkt.search.vectors import VectorBlock

__all__ = ["publish"]

_UNCOVERED = 1 / 20
"""A faiss index is written anew when more of the rows than this are not in it."""


def publish(
    folder: IndexFolder,
    states: Sequence[SegmentState],
    store: str,
    *,
    progress: bool = False,
) -> Generation:
    """Make ``states`` the segments of the next generation, which is searched in ``store``.

    The folder must be held.
    """
    description = folder.describe()
    before = folder.newest()
    number = before.number + 1 if before else 1
    segments = [
        Segment(
            folder.segments / state.name,
            description.encoder.dimension,
            np.empty(0, np.int32),
            description.settings,
        )
        for state in states
    ]
    blocks = {int(segment.name): segment.block for segment in segments}
    file = None
    try:
        label = store if is_faiss(store) else "to Milvus"
        total, shown = sum(map(len, segments)), progress and store != "exact"
        with progress_bar(label, total=total, unit="vectors", shown=shown) as advance:
            if is_faiss(store):
                file = _faiss_file(folder, before, states, store, list(blocks.values()), advance)
            elif store != "exact":
                keep = [int(state.name) for state in before.segments] if before else []
                write_milvus(store, description.id, blocks, keep=keep, advance=advance)
    finally:
        for segment in segments:
            segment.close()
    generation = Generation(number, tuple(states), store, file)
    folder.write_generation(generation)
    return generation


def _faiss_file(
    folder: IndexFolder,
    before: Generation | None,
    states: Sequence[SegmentState],
    store: str,
    blocks: Sequence[VectorBlock],
    advance: Callable[[int], None],
) -> str | None:
    rows = sum(map(len, blocks))
    if rows == 0:
        return None
    start: Path | None = None
    names = [state.name for state in states]
    if before is not None and before.store == store and before.store_file is not None:
        known = [state.name for state in before.segments]
        if names[: len(known)] == known:
            covered = int(before.store_file.split("-")[1])
            if rows - covered <= _UNCOVERED * rows:
                return before.store_file
            start = folder.stores / before.store_file
    number = before.number + 1 if before else 1
    file = f"{number:06d}-{rows}-{store}.faiss"
    assert is_faiss(store)
    write_faiss(folder.stores / file, store, blocks, start=start, advance=advance)
    return file
