"""What a server does, without HTTP: searches in batches, answers, documents, new versions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from clrelkt.errors import ClrelktError
from clrelkt.reader import Reader
from clrelkt.search import Hit, Index
from clrelkt.server.answers import (
    Answer,
    DocumentList,
    DocumentText,
    Health,
    SearchResult,
    document_head,
    document_text,
    found_hit,
)
from clrelkt.server.batching import BatcherClosedError, MicroBatcher, QueueFullError
from clrelkt.server.metrics import Metrics
from clrelkt.server.questions import EncodeQuestions
from clrelkt.server.remembering import RememberedVectors
from clrelkt.server.requests import DocumentsRequest, RequestError, SearchRequest
from clrelkt.server.settings import ServerSettings

__all__ = ["SearchService"]

_A = TypeVar("_A")
_B = TypeVar("_B")

_log = logging.getLogger("clrelkt.server")


@dataclass(frozen=True, slots=True)
class _Found:
    """The hits of a search, and the version of the index that they are from."""

    version: int
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class _ToRead:
    question: str
    texts: tuple[str, ...]


class SearchService:
    """An index, and a reader where there is one, behind queues."""

    def __init__(
        self,
        index: Index,
        settings: ServerSettings | None = None,
        reader: Reader | None = None,
        encode: EncodeQuestions | None = None,
    ) -> None:
        """Serve ``index``; ``encode`` takes the place of its ``encode_questions``."""
        self.index = index
        self.reader = reader
        self.settings = settings or ServerSettings()
        self.metrics = Metrics()
        self._vectors = RememberedVectors(
            encode or index.encode_questions, self.settings.remembered
        )
        self._searcher: MicroBatcher[SearchRequest, _Found] | None = None
        self._answerer: MicroBatcher[_ToRead, Sequence[Answer | None]] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._watch()

    async def start(self) -> None:
        """Take requests from now on; call it within the event loop that asks."""
        limits = self.settings
        self._searcher = MicroBatcher(
            self._search_batch,
            largest=limits.max_batch,
            waiting=limits.max_waiting,
            name="clrelkt-search",
        )
        if self.reader is not None:
            self._answerer = MicroBatcher(
                self._read_batch,
                largest=max(1, 16 // limits.read_hits),
                waiting=limits.max_waiting,
                name="clrelkt-reader",
            )
        self._refresher = asyncio.create_task(self._refresh_for_ever())

    async def stop(self) -> None:
        """Answer what waits, and take no more."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        for batcher in (self._searcher, self._answerer):
            if batcher is not None:
                await batcher.close()

    async def search(self, request: SearchRequest) -> SearchResult:
        """Carry out a search.

        Raises:
            RequestError: too many wait, the server is stopping, or the index cannot serve it.
        """
        began = time.perf_counter()
        found = await self._queued(self._searcher, request)
        answers: Sequence[Answer | None] = ()
        if request.answers and self._answerer is not None and found.hits:
            texts = tuple(hit.text for hit in found.hits[: self.settings.read_hits])
            answers = await self._queued(self._answerer, _ToRead(request.question, texts))
        return SearchResult(
            request.question,
            found.version,
            round(time.perf_counter() - began, 6),
            [found_hit(hit, answer) for hit, answer in itertools.zip_longest(found.hits, answers)],
        )

    async def documents(self, request: DocumentsRequest) -> DocumentList:
        """Return a part of the list of documents."""
        return await asyncio.to_thread(self._documents, request)

    async def document(self, id_: str) -> DocumentText:
        """Return a document with its text.

        Raises:
            RequestError: there is none of that id.
        """
        found = await asyncio.to_thread(self._document, id_)
        if found is None:
            raise RequestError(404, "not_found", f"there is no document with the id {id_[:200]!r}")
        return found

    def health(self) -> Health:
        """Return how the server is, and what it serves."""
        working = all(b is None or b.alive for b in (self._searcher, self._answerer))
        return Health(
            status="ok" if working and self._searcher is not None else "failing",
            version=self.index.version,
            documents=len(self.index),
            passages=self.index.passages,
            languages=self.index.languages(),
            encoder=self.index.encoder.name,
            reader=None if self.reader is None else self.reader.name,
            max_question=self.settings.max_question,
            max_hits=self.settings.max_hits,
        )

    async def _queued(self, batcher: MicroBatcher[_A, _B] | None, asked: _A) -> _B:
        if batcher is None:
            raise RequestError(503, "stopping", "the server is not ready yet")
        try:
            return await batcher.ask(asked)
        except QueueFullError:
            raise RequestError(
                503,
                "overloaded",
                f"{self.settings.max_waiting} requests are waiting already; ask again in a second",
            ) from None
        except BatcherClosedError:
            raise RequestError(503, "stopping", "the server is stopping") from None
        except ClrelktError as error:
            raise RequestError(422, "invalid", str(error)) from error

    def _search_batch(self, requests: Sequence[SearchRequest]) -> list[_Found]:
        began = time.perf_counter()
        version = self.index.version
        vectors = self._vectors([request.question for request in requests])
        groups: dict[bytes, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_options(request), []).append(place)
        found: dict[int, list[Hit]] = {}
        for places in groups.values():
            first = requests[places[0]]
            hits = self.index.search_batch(
                [requests[place].question for place in places],
                first.k,
                vectors=vectors[places],
                languages=first.languages,
                where=first.where,
                by=first.by,
                hybrid=first.hybrid,
                balanced=first.balanced,
            )
            found.update(zip(places, hits, strict=True))
        self.metrics.batches.observe(len(requests))
        self.metrics.search_seconds.observe(time.perf_counter() - began)
        return [_Found(version, found[place]) for place in range(len(requests))]

    def _read_batch(self, asked: Sequence[_ToRead]) -> list[Sequence[Answer | None]]:
        if self.reader is None:
            return [[] for _ in asked]
        began = time.perf_counter()
        pairs = [(entry.question, text) for entry in asked for text in entry.texts]
        readings = iter(self.reader.read_pairs(pairs))
        answers: list[Sequence[Answer | None]] = []
        for entry in asked:
            spans = [next(readings).answer for _ in entry.texts]
            answers.append(
                [
                    None
                    if span is None
                    else Answer(span.text, span.start, span.end, round(span.probability, 6))
                    for span in spans
                ]
            )
        self.metrics.reading_seconds.observe(time.perf_counter() - began)
        return answers

    def _documents(self, request: DocumentsRequest) -> DocumentList:
        shown = itertools.islice(
            self.index.documents(languages=request.languages, first=request.first), request.count
        )
        heads = [document_head(document) for document in shown]
        return DocumentList(self.index.version, len(self.index), request.first, heads)

    def _document(self, id_: str) -> DocumentText | None:
        found = self.index.document(id_)
        return None if found is None else document_text(found)

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            try:
                changed = await asyncio.to_thread(self.index.refresh)
            except Exception as error:  # The old version goes on, whatever the new one is like.
                self.metrics.failed_refreshes.inc()
                _log.error("the newer version of the index cannot be opened: %s", error)
                continue
            if changed:
                self.metrics.switches.inc()
                _log.info("the index is at version %d now", self.index.version)

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("index_version", "Version of the index.", lambda: self.index.version)
        watch("index_documents", "Documents of the index.", lambda: len(self.index))
        watch("index_passages", "Passages of the index.", lambda: self.index.passages)
        watch(
            "requests_waiting",
            "Requests that wait for a batch.",
            lambda: sum(len(b) for b in (self._searcher, self._answerer) if b is not None),
        )
        watch("questions_encoded", "Questions that were encoded.", lambda: self._vectors.encoded)
        watch(
            "questions_remembered",
            "Questions whose vectors were known still.",
            lambda: self._vectors.found,
        )


def _options(request: SearchRequest) -> bytes:
    """Return what requests must share to be searched together: all but the question."""
    return msgspec.json.encode(
        (
            request.k,
            request.languages,
            None if request.where is None else sorted(request.where.items()),
            request.by,
            request.hybrid,
            request.balanced,
        )
    )
