"""Sentences in any script."""

from __future__ import annotations

import re
from typing import NamedTuple

from icu4py.breakers import SentenceBreaker

__all__ = ["Span", "sentence_spans", "sentence_starts", "split_sentences"]

_CLAUSE = 24
"""Clauses shorter than this stay with their neighbour."""

_SPACE_ENDS_CLAUSE = re.compile(
    r"(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\s+(?=\S)"  # Thai, Lao, Burmese, Khmer.
)


class Span(NamedTuple):
    """From which character to which a part of a text goes."""

    start: int
    stop: int


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


def sentence_spans(text: str, locale: str = "en") -> list[Span]:
    """Return from where to where each sentence goes, the spaces behind it included.

    Together they are the whole text. Thai, Lao, Burmese and Khmer put no mark at the end of a
    sentence that ICU would know: there the spaces that part clauses count as ends too.
    """
    starts = sentence_starts(text, locale)
    spans = [Span(*limits) for limits in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [clause for span in spans for clause in _clauses(text, span)]


def _clauses(text: str, span: Span) -> list[Span]:
    starts = [span.start]
    for space in _SPACE_ENDS_CLAUSE.finditer(text, *span):
        if min(space.end() - starts[-1], span.stop - space.end()) >= _CLAUSE:
            starts.append(space.end())
    return [Span(*limits) for limits in zip(starts, [*starts[1:], span.stop], strict=True)]
