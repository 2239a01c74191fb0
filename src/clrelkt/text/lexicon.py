"""Words and their translations, learnt from sentence pairs, and texts that mix two languages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clrelkt.text.alignment import Alignment, align_tokens
from clrelkt.text.words import IcuWords

__all__ = ["Lexicon", "learn_lexicon", "switch_words"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_LONGEST = 30
_SPACELESS = frozenset(("ja", "th", "zh"))


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The likeliest translation of English words, case folded, into a language."""

    language: str
    entries: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.entries)


def learn_lexicon(
    english: Sequence[str],
    other: Sequence[str],
    language: str,
    *,
    rounds: int = 5,
    least_count: float = 1.0,
    least_share: float = 0.15,
) -> Lexicon:
    """Learn which word translates which from pairs of texts.

    Words are aligned by IBM's Model 1 in both directions. A word's translation is the word that it
    is aligned to most; it is taken where that happens ``least_count`` times, and with at least the
    share ``least_share`` of the word's alignments in each of the two directions.
    """
    own, own_words = _numbered(IcuWords("en").words(english))
    foreign, foreign_words = _numbered(IcuWords(language).words(other))
    forth = _shares(align_tokens(foreign, own, rounds=rounds, longest=_LONGEST))
    back = _shares(align_tokens(own, foreign, rounds=rounds, longest=_LONGEST))
    best: dict[int, tuple[float, int]] = {}
    for (there, here), (count, share) in forth.items():
        reverse = back.get((here, there), (0.0, 0.0))
        strength = min(share, reverse[1])
        if min(count, reverse[0]) >= least_count and strength >= least_share:
            best[here] = max(best.get(here, (0.0, -1)), (strength, there))
    entries = {own_words[here]: foreign_words[there] for here, (_, there) in sorted(best.items())}
    return Lexicon(language, entries)


def _numbered(texts: Iterable[Sequence[str]]) -> tuple[list[list[int]], list[str]]:
    numbers: dict[str, int] = {}
    found = [[numbers.setdefault(word, len(numbers)) for word in words] for words in texts]
    return found, list(numbers)


def _shares(alignment: Alignment) -> dict[tuple[int, int], tuple[float, float]]:
    """Return counts of (token, translation), and their share of all of the translation's."""
    real = alignment.translations >= 0
    tokens, translations = alignment.tokens[real], alignment.translations[real]
    counts = alignment.counts[real]
    if not len(counts):
        return {}
    shares = counts / np.bincount(translations, counts)[translations]
    kept = counts >= 0.5  # The rest is noise, and most of the table.
    keys = zip(tokens[kept].tolist(), translations[kept].tolist(), strict=True)
    values = zip(counts[kept].tolist(), shares[kept].tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


def switch_words(text: str, lexicon: Lexicon, share: float, rng: np.random.Generator) -> str:
    """Return an English text with a share of the words that ``lexicon`` knows translated.

    Words stay in their order (code switching as in CoSDA-ML, Qin et al. 2020,
    https://arxiv.org/abs/2006.06402). Between two translated words no space stays where the
    language writes none.
    """
    parts: list[str] = []
    end, switched_before = 0, False
    for found in _WORD.finditer(text):
        between, word = text[end : found.start()], found.group()
        translation = lexicon.entries.get(word.casefold())
        switched = translation is not None and bool(rng.random() < share)
        joined = switched and switched_before and lexicon.language in _SPACELESS
        parts.append("" if joined and between.isspace() else between)
        parts.append(translation if switched and translation is not None else word)
        end, switched_before = found.end(), switched
    return "".join(parts) + text[end:]
