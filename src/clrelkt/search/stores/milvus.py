"""A Milvus server or cluster, for vectors that outgrow the machine.

Each index has a collection of its own, named after its id. A vector's primary key is its
segment's number times 2**32 plus its row there. Segments never change, and a search names those
of its generation: what is added meanwhile it does not see. Vectors of segments that went out of
use stay until the change after the next, for readers that still search them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from clrelkt.errors import MissingExtraError, SearchIndexError, SettingsError
from clrelkt.search.vectors import Neighbours, VectorBlock, exact_search

__all__ = ["MilvusAddress", "MilvusStore", "write_milvus"]

_BLOCK = 2_000
_MOST = 16_384
"""Milvus returns no more for a question."""
_FEW = 20_000
_PARAMETERS = {"M": 16, "efConstruction": 200}


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """Where a server is: ``milvus://host:port``, perhaps with ``user:password@``."""

    uri: str
    token: str

    @classmethod
    def parse(cls, store: str) -> Self:
        """Read an address.

        Raises:
            SettingsError: it is none.
        """
        try:
            parts = urlsplit(store)
            host, port = parts.hostname, parts.port or 19530
        except ValueError as error:
            raise SettingsError(f"store {store!r}: {error}") from error
        if parts.scheme not in ("milvus", "milvuss") or not host or parts.path.strip("/"):
            raise SettingsError(f"store {store!r}: expected milvus://HOST:PORT")
        secure = "https" if parts.scheme == "milvuss" else "http"
        token = f"{parts.username}:{parts.password}" if parts.username else ""
        return cls(f"{secure}://{host}:{port}", token)


def write_milvus(
    store: str,
    index_id: str,
    segments: Mapping[int, VectorBlock],
    *,
    keep: Sequence[int] = (),
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Put the vectors of those segments that are not there yet into the index's collection.

    Vectors of other segments are removed, except for those in ``keep``.

    Raises:
        MissingExtraError: pymilvus is not installed.
        SettingsError: ``store`` is no address.
        SearchIndexError: no server answers there, or it refuses.
    """
    with _client(store) as client, _errors(store):
        name = _collection(index_id)
        if not client.has_collection(name):
            width = next(iter(segments.values())).halves.shape[1] if segments else 1
            _create(client, name, width)
        client.load_collection(name)
        there = _counts(client, name, segments)
        for number, block in segments.items():
            if there[number] == len(block):
                continue
            client.delete(name, filter=f"segment == {number}")
            for start in range(0, len(block), _BLOCK):
                rows = block.halves[start : start + _BLOCK].astype(np.float32)
                keys = (number << 32) + np.arange(start, start + len(rows))
                client.insert(
                    name,
                    [
                        {"id": key, "segment": number, "vector": vector}
                        for key, vector in zip(keys.tolist(), rows, strict=True)
                    ],
                )
                advance(len(rows))
        client.flush(name)
        used = sorted({*segments, *keep})
        client.delete(name, filter=f"segment not in {used}" if used else "segment >= 0")


def _create(client: Any, name: str, width: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("segment", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
    parameters = client.prepare_index_params()
    parameters.add_index("vector", index_type="HNSW", metric_type="IP", params=_PARAMETERS)
    client.create_collection(
        name, schema=schema, index_params=parameters, consistency_level="Strong"
    )


def _counts(client: Any, name: str, segments: Mapping[int, VectorBlock]) -> dict[int, int]:
    """Return how many vectors of each segment are there."""
    found = {}
    for number in segments:
        rows = client.query(name, filter=f"segment == {number}", output_fields=["count(*)"])
        found[number] = int(rows[0]["count(*)"])
    return found


class MilvusStore:
    """The vectors of one generation, on a server."""

    def __init__(self, store: str, index_id: str, segments: Mapping[int, VectorBlock]) -> None:
        """Connect to the server.

        ``segments`` are the generation's, by number, in order.

        Raises:
            MissingExtraError: pymilvus is not installed.
            SearchIndexError: no server answers, or it does not have the index.
        """
        self._store = store
        self._name = _collection(index_id)
        self._blocks = list(segments.values())
        self._numbers = list(segments)
        starts = np.cumsum([0, *(len(block) for block in self._blocks)])
        self._starts = dict(zip(segments, starts.tolist(), strict=False))
        self._rows = int(starts[-1])
        self._connection = _client(store)
        self._client = self._connection.__enter__()
        with _errors(store):
            if not self._client.has_collection(self._name):
                raise SearchIndexError(
                    f"{store} has no collection {self._name}; put the index there with clrelkt "
                    "index copy"
                )
            self._client.load_collection(self._name)
            self._check_there()

    def _check_there(self) -> None:
        """Make sure that all vectors can be found, so that searches need not wait for it."""
        if not self._numbers:
            return
        rows = self._client.query(
            self._name,
            filter=f"segment in {self._numbers}",
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        found = int(rows[0]["count(*)"])
        if found != self._rows:
            raise SearchIndexError(
                f"{self._store} has {found:,} of the {self._rows:,} vectors of this index; put "
                "them there with clrelkt index copy"
            )

    def search(
        self, questions: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> Neighbours:
        """Return about the ``k`` nearest rows to each question.

        Milvus knows nothing of what is allowed: as many more are asked for as it takes. Among
        few allowed rows, and for more hits than Milvus gives, vectors are compared here.
        """
        few = allowed is not None and int(allowed.sum()) <= _FEW
        wanted = k if allowed is None else 2 * k * self._rows // max(1, int(allowed.sum()))
        while not few and wanted <= _MOST:
            rows, scores = self._search(questions, min(max(wanted, k), self._rows))
            if allowed is None:
                return Neighbours(rows, scores)
            permitted = (rows >= 0) & allowed[rows.clip(min=0)]
            if wanted >= self._rows or (permitted.sum(axis=1) >= k).all():
                return _first(rows, scores, permitted, k)
            wanted *= 4
        return exact_search(questions, self._blocks, k, allowed)

    def _search(self, questions: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        with _errors(self._store):
            found = self._client.search(
                self._name,
                data=list(questions),
                limit=wanted,
                filter=f"segment in {self._numbers}",
                search_params={"metric_type": "IP", "params": {"ef": max(128, wanted)}},
                consistency_level="Eventually",
            )
        rows = np.full((len(questions), wanted), -1, np.int64)
        scores = np.full((len(questions), wanted), -np.inf, np.float32)
        for number, hits in enumerate(found):
            keys = np.array([hit["id"] for hit in hits], np.int64)
            starts = np.array([self._starts[key] for key in (keys >> 32).tolist()], np.int64)
            rows[number, : len(keys)] = starts + (keys & (2**32 - 1))
            scores[number, : len(keys)] = [hit["distance"] for hit in hits]
        return rows, scores

    def close(self) -> None:
        """Close the connection."""
        self._connection.__exit__(None, None, None)


def _first(rows: np.ndarray, scores: np.ndarray, permitted: np.ndarray, k: int) -> Neighbours:
    """Return the first ``k`` permitted hits of each question."""
    order = np.argsort(~permitted, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(permitted, order, 1)
    return Neighbours(
        np.where(kept, np.take_along_axis(rows, order, 1), -1),
        np.where(kept, np.take_along_axis(scores, order, 1), -np.inf).astype(np.float32),
    )


def _collection(index_id: str) -> str:
    return f"clrelkt_{index_id}"


@contextmanager
def _client(store: str) -> Iterator[Any]:
    address = MilvusAddress.parse(store)
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingExtraError("pymilvus", "milvus") from error
    with _errors(store):
        client = MilvusClient(uri=address.uri, token=address.token, timeout=10)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _errors(store: str) -> Iterator[None]:
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        reason = " ".join(str(error.message).split())[:200]
        raise SearchIndexError(f"{store}: {reason}. Is a Milvus server running there?") from error
