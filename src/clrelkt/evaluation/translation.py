"""How often the nearest sentence of the other language is the translation.

The bitext retrieval of Artetxe and Schwenk (2019, https://arxiv.org/abs/1812.10464) with cosine
scores: each sentence is looked for among the translations of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clrelkt.corpora.pairs import SentencePairs
from clrelkt.encoders.protocol import Encoder
from clrelkt.errors import DataError
from clrelkt.evaluation.metrics import gold_ranks, hit_rate
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode

__all__ = ["TranslationResult", "translation_retrieval"]

_BUDGET = 2**23


@dataclass(frozen=True, slots=True)
class TranslationResult:
    """Hit rate@1 among ``pairs`` sentence pairs of English and ``language``, both directions."""

    language: str
    pairs: int
    to_english: float
    from_english: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "language": self.language,
            "pairs": self.pairs,
            "to_english_hit_rate@1": self.to_english,
            "from_english_hit_rate@1": self.from_english,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TranslationResult:
        """Return the result that ``to_json`` described."""
        return cls(
            record["language"],
            record["pairs"],
            record["to_english_hit_rate@1"],
            record["from_english_hit_rate@1"],
        )


def translation_retrieval(
    encoder: Encoder, pairs: SentencePairs, encode: Encode | None = None
) -> TranslationResult:
    """Look for each sentence's translation among those of all ``pairs``.

    Equal scores rank the translation last. Sentences should be distinct on both sides, as
    ``hold_out`` draws them: a second copy of a translation makes both a miss. ``encode`` takes
    the place of ``encoder.encode``.

    Raises:
        DataError: there are no pairs.
    """
    if not len(pairs):
        raise DataError(f"no sentence pairs of {pairs.language!r}: nothing to evaluate")
    encode = encode or encoder.encode
    english = on_grid(torch.from_numpy(encode(pairs.english, "passage")))
    other = on_grid(torch.from_numpy(encode(pairs.other, "passage")))
    return TranslationResult(
        pairs.language, len(pairs), _hit_rate(other, english), _hit_rate(english, other)
    )


def _hit_rate(queries: torch.Tensor, candidates: torch.Tensor) -> float:
    """Return the hit rate@1 where the candidate of each query has the query's number."""
    height = max(1, _BUDGET // len(candidates))
    ranks = [
        gold_ranks(
            (block @ candidates.T).numpy(), np.arange(start, start + len(block), dtype=np.int64)
        )
        for start, block in zip(
            range(0, len(queries), height), torch.split(queries, height), strict=True
        )
    ]
    return hit_rate(np.concatenate(ranks), 1)
