"""What a server answers: the JSON of each response."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from clrelkt.search import Hit, StoredDocument
from clrelkt.server.requests import Reason

__all__ = [
    "Answer",
    "DocumentHead",
    "DocumentList",
    "DocumentText",
    "Failure",
    "FoundHit",
    "Health",
    "Passage",
    "SearchResult",
    "Sentence",
    "document_head",
    "document_text",
    "encode",
    "found_hit",
]

Scalar = str | int | float | bool


class Sentence(msgspec.Struct, frozen=True):
    """A sentence of a hit: the characters (Unicode code points) from start up to stop."""

    start: int
    stop: int
    score: float


class Answer(msgspec.Struct, frozen=True):
    """An answer that the reader found in a hit: characters from start up to stop."""

    text: str
    start: int
    stop: int
    probability: float


class FoundHit(msgspec.Struct, frozen=True):
    """A hit."""

    rank: int
    score: float
    document_id: str
    passage_id: str
    title: str
    text: str
    language: str
    metadata: dict[str, Scalar]
    highlights: list[Sentence]
    answer: Answer | None = None


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found, in which version of the index, in how many seconds."""

    question: str
    version: int
    seconds: float
    hits: list[FoundHit]


class Passage(msgspec.Struct, frozen=True):
    """A passage of a document."""

    id: str
    text: str


class DocumentText(msgspec.Struct, frozen=True):
    """A document with its passages in order."""

    id: str
    title: str
    language: str
    metadata: dict[str, Scalar]
    passages: list[Passage]


class DocumentHead(msgspec.Struct, frozen=True):
    """A document of a list."""

    id: str
    title: str
    language: str
    metadata: dict[str, Scalar]
    passages: int


class DocumentList(msgspec.Struct, frozen=True):
    """A part of the documents; ``documents`` counts all of the index."""

    version: int
    documents: int
    first: int
    shown: list[DocumentHead]


class Health(msgspec.Struct, frozen=True):
    """How the server is, and what it serves."""

    status: str
    version: int
    documents: int
    passages: int
    languages: dict[str, int]
    encoder: str
    reader: str | None
    max_question: int
    max_hits: int


class Failure(msgspec.Struct, frozen=True):
    """Why a request was refused: a word for programs, a sentence for people."""

    error: Reason
    message: str


encode = msgspec.json.Encoder().encode
"""An answer as JSON."""


def found_hit(hit: Hit, answer: Answer | None = None) -> FoundHit:
    """Return a hit of the index as it is answered."""
    return FoundHit(
        hit.rank,
        round(hit.score, 6),
        hit.document_id,
        hit.passage_id,
        hit.title,
        hit.text,
        hit.language,
        _plain(hit.metadata),
        [Sentence(s.start, s.stop, round(s.score, 6)) for s in hit.highlights],
        answer,
    )


def document_text(document: StoredDocument) -> DocumentText:
    """Return a document of the index as it is answered."""
    return DocumentText(
        document.id,
        document.title,
        document.language,
        _plain(document.metadata),
        [Passage(passage.id, passage.text) for passage in document.passages],
    )


def document_head(document: StoredDocument) -> DocumentHead:
    """Return a document of the index as a list shows it."""
    return DocumentHead(
        document.id,
        document.title,
        document.language,
        _plain(document.metadata),
        len(document.passages),
    )


def _plain(metadata: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return metadata if isinstance(metadata, dict) else dict(metadata)
