"""How an index is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from clrelkt.errors import SettingsError
from clrelkt.search.stores import check_store
from clrelkt.text.passages import check_budget

__all__ = ["IndexSettings", "Precision"]

Precision = Literal["float16", "int8"]
"""What an exact search reads through: all of every vector at half or a quarter of float32's size.

With int8 the best 100 are compared again by their float16 vectors.
"""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How an index is made.

    Attributes:
        budget: tokens of a passage, at most; passages that a source has already stay whole.
        overlap: tokens of whole sentences that a passage may share with the one before.
        precision: what an exact search reads.
        sentences: whether the sentences' vectors are computed too, for highlights; without them
            a search encodes the sentences of its hits.
        words: whether BM25's postings are written too, for hybrid searches.
        store: where nearest vectors are looked for: ``exact``, ``hnsw``, ``ivf`` (faiss), or the
            address of a Milvus server, ``milvus://host:port``.
        segment_rows: passages of a segment; a document more may make it longer.
    """

    budget: int = 192
    overlap: int = 32
    precision: Precision = "float16"
    sentences: bool = True
    words: bool = True
    store: str = "exact"
    segment_rows: int = 131_072

    def __post_init__(self) -> None:
        check_budget(self.budget, self.overlap)
        check_store(self.store)
        if self.segment_rows < 1:
            raise SettingsError(f"segments of {self.segment_rows} passages: at least 1 expected")
        if self.precision not in get_args(Precision):
            raise SettingsError(
                f"precision {self.precision!r}: expected {' or '.join(get_args(Precision))}"
            )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the settings that ``to_json`` has written."""
        return cls(**record)

    def to_json(self) -> dict[str, Any]:
        """Return them as a JSON object."""
        return asdict(self)
