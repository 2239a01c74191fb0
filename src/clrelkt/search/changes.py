"""Changes of an index that need no encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clrelkt.search.compaction import compacted
from clrelkt.search.generations import IndexFolder
from clrelkt.search.publishing import publish
from clrelkt.search.snapshot import Snapshot
from clrelkt.search.stores import check_store
from clrelkt.search.writing import delete_documents, exclusive, pending_segments

__all__ = ["compact_index", "copy_to_store", "delete_from"]


def delete_from(path: str | Path, ids: Sequence[str]) -> int:
    """Delete documents by their ids, all of them or none; return the index's new version.

    Raises:
        DataError: there is no document of that id.
    """
    folder = IndexFolder(Path(path))
    folder.describe()
    with exclusive(folder):
        folder.settle()
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
        folder.settle()
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
        folder.settle()
        folder.sweep(pending_segments(folder))
        snapshot = Snapshot.open(folder)
        try:
            before = snapshot.generation
            states = compacted(folder, snapshot)
            if states == before.segments:
                return before.number
            version = publish(folder, states, before.store).number
        finally:
            snapshot.close()
        folder.sweep(pending_segments(folder))
    return version
