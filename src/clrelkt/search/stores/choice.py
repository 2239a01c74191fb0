"""The store that a name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from clrelkt.errors import SettingsError
from clrelkt.search.stores.exact import ExactStore
from clrelkt.search.stores.faiss import FaissKind, FaissStore
from clrelkt.search.stores.milvus import MilvusAddress, MilvusStore
from clrelkt.search.stores.protocol import VectorStore
from clrelkt.search.vectors import VectorBlock

__all__ = ["check_store", "is_faiss", "open_store"]


def is_faiss(store: str) -> TypeGuard[FaissKind]:
    """Tell whether a store is one of faiss."""
    return store in ("hnsw", "ivf")


def check_store(store: str) -> None:
    """Refuse a name that stands for no store.

    Raises:
        SettingsError: it is neither exact, hnsw nor ivf, nor the address of a Milvus server.
    """
    if store == "exact" or is_faiss(store):
        return
    if not store.startswith("milvus"):
        raise SettingsError(
            f"store {store!r}: expected exact, hnsw or ivf (faiss), or milvus://HOST:PORT"
        )
    MilvusAddress.parse(store)


def open_store(
    store: str, file: Path | None, index_id: str, segments: Mapping[int, VectorBlock]
) -> VectorStore:
    """Open the store of one generation.

    Args:
        store: its name.
        file: its file, where it has one.
        index_id: the index's id.
        segments: the generation's vectors, by segment number, in order.

    Raises:
        MissingExtraError: what it needs is not installed.
        SearchIndexError: it cannot be read or reached.
    """
    check_store(store)
    blocks = list(segments.values())
    if file is not None and is_faiss(store):
        return FaissStore(file, blocks)
    if store == "exact" or is_faiss(store):  # An index without passages has no file.
        return ExactStore(blocks)
    return MilvusStore(store, index_id, segments)
