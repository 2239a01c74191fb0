"""Sentences in any script."""

from __future__ import annotations

from icu4py.breakers import SentenceBreaker

__all__ = ["sentence_starts", "split_sentences"]


def split_sentences(text: str, locale: str = "en") -> list[str]:
    """Return the sentences between ICU's boundaries, without the spaces around them.

    None is empty; ``locale`` changes only details of the rules.
    """
    stripped = (sentence.strip() for sentence in SentenceBreaker(text, locale))
    return [sentence for sentence in stripped if sentence]


def sentence_starts(text: str, locale: str = "en") -> list[int]:
    """Return the character at which each sentence begins, the first at 0 (none for "")."""
    starts, place = [], 0
    for sentence in SentenceBreaker(text, locale):
        starts.append(place)
        place += len(sentence)
    return starts
