"""Words in any script, for BM25."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from unicodedata import normalize

from icu4py.breakers import WordBreaker

__all__ = ["IcuWords", "WordTokenizer"]


@runtime_checkable
class WordTokenizer(Protocol):
    """Text to words that can be compared with each other."""

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of each text in order, none of them empty."""


@dataclass(frozen=True, slots=True)
class IcuWords:
    """Words between ICU's word boundaries, case folded; only those with a letter or a digit.

    ICU finds the words of Thai, Chinese and Japanese with dictionaries. ``locale`` changes only
    details of the rules.
    """

    locale: str = "en"

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of each text in order, none of them empty."""
        return [self._words(text) for text in texts]

    def _words(self, text: str) -> list[str]:
        # NFC, not NFKC: the latter takes Thai's SARA AM apart, and ICU's dictionary misses it.
        folded = normalize("NFC", text.casefold())
        return [
            word
            for word in WordBreaker(folded, self.locale)
            if word.isalnum() or any(character.isalnum() for character in word)
        ]
