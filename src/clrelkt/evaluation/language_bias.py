"""Whether an encoder keeps languages apart that ask the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from clrelkt.corpora.model import Question
from clrelkt.mining.similarity import on_grid

__all__ = ["NEAREST", "LanguageBias", "measure_language_bias"]

NEAREST = 10
"""How many nearest questions are looked at."""

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class LanguageBias:
    """The share of a question's nearest other questions that are in its own language.

    Both are means over the questions of a language. ``expected`` is the share if no language were
    preferred.
    """

    share: float
    expected: float

    def to_json(self) -> dict[str, float]:
        """Return both numbers by name."""
        return {"share": self.share, "expected": self.expected}


def measure_language_bias(
    questions: Sequence[Question], vectors: np.ndarray
) -> Mapping[str, LanguageBias]:
    """Look at the ``NEAREST`` other questions of each question, its translations left out.

    Translations are what shall be near; what else is near shows what the encoder goes by. Where
    there are fewer other questions all of them count. A language none of whose questions has any
    is left out, as is everything where there is one language alone.

    Args:
        questions: in several languages.
        vectors: their unit vectors, shape (questions, dimension).
    """
    codes = list(dict.fromkeys(question.language for question in questions))
    if len(codes) < 2:
        return MappingProxyType({})
    language = np.array([codes.index(question.language) for question in questions])
    ids = list(dict.fromkeys(question.parallel_id for question in questions))
    number = {parallel_id: place for place, parallel_id in enumerate(ids)}
    asked = np.array([number[question.parallel_id] for question in questions])
    exact = on_grid(torch.from_numpy(vectors))
    shares, expected = np.empty(len(asked)), np.empty(len(asked))
    for start in range(0, len(asked), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = (exact[block] @ exact.T).numpy()
        other = asked[block, None] != asked
        same = (language[block, None] == language) & other
        order = np.argsort(np.where(other, -scores, np.inf), axis=1, kind="stable")[:, :NEAREST]
        rows = np.arange(len(order))[:, None]
        with np.errstate(invalid="ignore"):
            shares[block] = same[rows, order].sum(1) / np.minimum(other.sum(1), NEAREST)
            expected[block] = same.sum(1) / other.sum(1)
    return MappingProxyType(
        {
            code: LanguageBias(
                float(np.nanmean(shares[language == place])),
                float(np.nanmean(expected[language == place])),
            )
            for place, code in enumerate(codes)
            if np.isfinite(shares[language == place]).any()
        }
    )
