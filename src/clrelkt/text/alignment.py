"""Which token of a translation goes with which (IBM's Model 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Alignment", "align_tokens"]

_MOST_TOKEN_PAIRS = 20_000_000


@dataclass(frozen=True, slots=True)
class Alignment:
    """How often a token is aligned to a token of its translation, three arrays of shape (kinds,).

    ``tokens`` and ``translations`` hold token ids, the latter -1 for nothing at all; ``counts``
    are expected numbers of times.
    """

    tokens: np.ndarray
    translations: np.ndarray
    counts: np.ndarray


def align_tokens(
    texts: Sequence[Sequence[int]],
    translations: Sequence[Sequence[int]],
    *,
    rounds: int = 5,
    longest: int = 40,
) -> Alignment:
    """Align the tokens of texts with those of their translations by IBM's Model 1.

    Each token of a text is explained by one token of the translation or by nothing. Pairs with an
    empty side or one of more than ``longest`` tokens are left out, and those beyond the first
    20 million pairs of tokens.
    """
    chosen: list[int] = []
    size = 0
    lengths = ((len(own), len(foreign)) for own, foreign in zip(texts, translations, strict=True))
    for number, (height, width) in enumerate(lengths):
        if 0 < height <= longest and 0 < width <= longest:
            size += height * (width + 1)
            if size > _MOST_TOKEN_PAIRS:
                break
            chosen.append(number)
    own_lengths = np.array([len(texts[number]) for number in chosen], dtype=np.int64)
    foreign_lengths = np.array([len(translations[number]) + 1 for number in chosen], dtype=np.int64)
    own = np.array([token for number in chosen for token in texts[number]], dtype=np.int64)
    foreign = np.array(
        [token for number in chosen for token in (-1, *translations[number])], dtype=np.int64
    )
    # Every token of a text meets every token of the translation, and -1, which is nothing.
    meetings = np.repeat(foreign_lengths, own_lengths)
    token = np.repeat(np.arange(len(own)), meetings)
    begins = np.repeat(np.cumsum(foreign_lengths) - foreign_lengths, own_lengths)
    places = np.arange(len(token)) + np.repeat(begins - (np.cumsum(meetings) - meetings), meetings)
    base = int(foreign.max(initial=0)) + 2
    kinds, kind = np.unique(own[token] * base + foreign[places] + 1, return_inverse=True)
    explained, explaining = kinds // base, kinds % base - 1
    counts: np.ndarray = np.ones(len(kinds))
    probability: np.ndarray = counts
    for _ in range(rounds):
        likelihood = probability[kind]
        totals = np.bincount(token, likelihood, minlength=len(own))
        counts = np.bincount(kind, likelihood / totals[token], minlength=len(kinds))
        probability = counts / np.bincount(explaining + 1, counts)[explaining + 1]
    return Alignment(explained, explaining, counts)
