"""What a search finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Highlight", "Hit", "Scalar", "StoredDocument", "StoredPassage", "Where", "value_key"]

Scalar = str | int | float | bool
"""A value of a document's metadata that a search can be restricted by."""

Where = Mapping[str, Scalar | Sequence[Scalar]]
"""Which values the metadata of a document must have; of several one is enough."""


def value_key(value: Scalar) -> str:
    """Return a text that is the same for equal values of the same kind."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


@dataclass(frozen=True, slots=True)
class Highlight:
    """A sentence of a hit's text: its characters, and its cosine to the question."""

    start: int
    stop: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found.

    Attributes:
        rank: 1 is the best hit.
        score: the passage's cosine to the question; the fused score in a hybrid search.
        document_id: its document.
        passage_id: the passage; in a search by document the document's best one.
        title: the document's title; "" where it has none.
        text: the passage.
        language: the document's language, ISO 639-1; "" where it is not known.
        metadata: the document's.
        highlights: the sentence of ``text`` that is nearest to the question.
    """

    rank: int
    score: float
    document_id: str
    passage_id: str
    title: str
    text: str
    language: str
    metadata: Mapping[str, Any]
    highlights: tuple[Highlight, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "rank": self.rank,
            "score": self.score,
            "document_id": self.document_id,
            "passage_id": self.passage_id,
            "title": self.title,
            "text": self.text,
            "language": self.language,
            "metadata": dict(self.metadata),
            "highlights": [
                {"start": found.start, "stop": found.stop, "score": found.score}
                for found in self.highlights
            ],
        }


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage of an index."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of an index, with its passages in order."""

    id: str
    title: str
    language: str
    metadata: Mapping[str, Any]
    passages: tuple[StoredPassage, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "id": self.id,
            "title": self.title,
            "language": self.language,
            "metadata": dict(self.metadata),
            "passages": [{"id": passage.id, "text": passage.text} for passage in self.passages],
        }
