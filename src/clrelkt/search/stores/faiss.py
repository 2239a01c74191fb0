"""faiss: HNSW graphs and inverted files, for millions of vectors on one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clrelkt.errors import MissingExtraError, SearchIndexError, StorageError
from clrelkt.search.vectors import (
    RESCORED,
    Neighbours,
    VectorBlock,
    exact_search,
    gathered,
    merged,
)

__all__ = ["FaissKind", "FaissStore", "write_faiss"]

FaissKind = Literal["hnsw", "ivf"]

_NEIGHBOURS = 48
_CONSTRUCTION = 300
_SEARCH = 256
_LISTS_PER_ROOT = 4
_PROBES = 288
_TRAINED = 64
"""Vectors a list is trained with."""
_PRODUCT_FROM = 20_000
"""Rows from which a vector is kept as products of four numbers' codes: one bit a number."""
_RESCORED_PRODUCTS = 512
_BLOCK = 20_000
_FEW = 20_000
"""Among so few rows every vector is compared: quicker, and exact."""


def write_faiss(
    path: Path,
    kind: FaissKind,
    blocks: Sequence[VectorBlock],
    *,
    start: Path | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write an index of all vectors to ``path``.

    ``start`` is one that holds the first vectors already.

    Raises:
        MissingExtraError: faiss is not installed.
        StorageError: it cannot be written.
    """
    faiss = _import_faiss()
    index = faiss.read_index(str(start)) if start is not None else None
    if index is None:
        index = _empty(faiss, kind, blocks)
    done, first = int(index.ntotal), 0
    for block in blocks:
        for place in range(max(0, done - first), len(block), _BLOCK):
            rows = block.halves[place : place + _BLOCK].astype(np.float32)
            index.add(rows)
            advance(len(rows))
        first += len(block)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise StorageError(f"{path}: cannot be written ({error})") from error


def _empty(faiss: Any, kind: FaissKind, blocks: Sequence[VectorBlock]) -> Any:
    rows = sum(len(block) for block in blocks)
    width = blocks[0].halves.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT
    lists = max(1, min(int(_LISTS_PER_ROOT * rows**0.5), rows // 40))
    if kind == "hnsw":
        index = faiss.index_factory(width, f"HNSW{_NEIGHBOURS},SQ8", metric)
        index.hnsw.efConstruction = _CONSTRUCTION
    else:
        products = rows >= _PRODUCT_FROM and width % 4 == 0
        codes = f"PQ{width // 4}x4fs" if products else "SQ8"
        index = faiss.index_factory(width, f"IVF{lists},{codes}", metric)
    sample = np.sort(np.random.default_rng(0).permutation(rows)[: max(lists * _TRAINED, 10_000)])
    index.train(gathered(blocks, sample))
    return index


class FaissStore:
    """A faiss index of the first rows; rows after those are compared one by one.

    A graph holds 8 bits a number, inverted files of many rows one bit; the best are compared again
    by float16.
    """

    def __init__(self, path: Path, blocks: Sequence[VectorBlock]) -> None:
        """Read the index.

        Raises:
            MissingExtraError: faiss is not installed.
            SearchIndexError: the file is missing or damaged, or of other vectors.
        """
        faiss = _import_faiss()
        try:
            self._index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SearchIndexError(f"{path}: cannot be read ({error})") from error
        self._blocks = list(blocks)
        self._rows = sum(len(block) for block in blocks)
        self._covered = int(self._index.ntotal)
        width = blocks[0].halves.shape[1] if blocks else self._index.d
        if self._index.d != width or self._covered > self._rows:
            raise SearchIndexError(
                f"{path}: {self._covered} vectors of {self._index.d} numbers; the index has "
                f"{self._rows} of {width}. Write it anew with clrelkt index copy"
            )
        self._faiss = faiss

    def search(
        self, questions: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> Neighbours:
        """Return about the ``k`` nearest rows to each question."""
        if allowed is not None and int(allowed.sum()) <= _FEW:
            return exact_search(questions, self._blocks, k, allowed)
        coarse = isinstance(self._index, self._faiss.IndexIVFFastScan)
        rescored = _RESCORED_PRODUCTS if coarse else RESCORED
        wanted = min(max(k, rescored), self._covered)
        _, rows = self._index.search(questions, wanted, params=self._parameters(wanted, allowed))
        found = Neighbours(rows.astype(np.int64), np.zeros(rows.shape, np.float32))
        return merged(questions, self._blocks, [found, *self._newer(questions, k, allowed)], k)

    def _newer(self, questions: np.ndarray, k: int, allowed: np.ndarray | None) -> list[Neighbours]:
        if self._covered == self._rows:
            return []
        later = np.ones(self._rows, bool) if allowed is None else allowed.copy()
        later[: self._covered] = False
        return [exact_search(questions, self._blocks, k, later)]

    def _parameters(self, wanted: int, allowed: np.ndarray | None) -> Any:
        options: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed[: self._covered], bitorder="little")
            options["sel"] = self._faiss.IDSelectorBitmap(bits)
        if isinstance(self._index, self._faiss.IndexHNSW):
            effort = max(_SEARCH, wanted)
            return self._faiss.SearchParametersHNSW(efSearch=effort, **options)
        return self._faiss.SearchParametersIVF(nprobe=_PROBES, **options)

    def close(self) -> None:
        """Do nothing: memory goes with the object."""


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "faiss") from error
    return faiss
