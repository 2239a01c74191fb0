"""Exact match and F1 of an answer, as SQuAD, XQuAD and MLQA define them.

XQuAD is scored as SQuAD 1.1 is (Rajpurkar et al., 2016; Artetxe et al., 2020): lower case, no ASCII
punctuation, no English article, words between spaces. MLQA (Lewis et al., 2020) takes away the
punctuation of every script and the articles of the answer's own language, and counts each Chinese
character as a word.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from clrelkt.errors import SettingsError

__all__ = ["Normalisation", "answer_words", "exact_match", "f1_score"]

Normalisation = Literal["squad", "mlqa"]
"""Whose rules say when two answers are the same."""

_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ARTICLES: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "en": _ENGLISH_ARTICLES,
        "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
        "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
        "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
        "ar": re.compile(r"\sال^|ال"),  # noqa: RUF001
    }
)
"""MLQA's articles; Hindi and Chinese have none, and no other language is in MLQA."""

_ASCII_PUNCTUATION = frozenset(string.punctuation)
_HAN_FIRST, _HAN_LAST = "\u4e00", "\u9fa5"


def exact_match(
    answer: str, golds: Iterable[str], language: str, normalisation: Normalisation = "squad"
) -> float:
    """Return 1 where ``answer`` is one of ``golds`` once both are normalised, else 0.

    ``language`` is that of the answers; it counts under MLQA's rules alone.

    Raises:
        SettingsError: there is no such normalisation, or no gold.
    """
    words = answer_words(answer, language, normalisation)
    return _best(golds, lambda gold: words == answer_words(gold, language, normalisation))


def f1_score(
    answer: str, golds: Iterable[str], language: str, normalisation: Normalisation = "squad"
) -> float:
    """Return the harmonic mean of precision and recall of words, of the gold where it is highest.

    Raises:
        SettingsError: there is no such normalisation, or no gold.
    """
    words = answer_words(answer, language, normalisation)
    return _best(golds, lambda gold: _f1(words, answer_words(gold, language, normalisation)))


def answer_words(text: str, language: str, normalisation: Normalisation) -> list[str]:
    """Return what is compared of an answer: its words, without what the rules leave out.

    Raises:
        SettingsError: there is no such normalisation.
    """
    if normalisation == "squad":
        return _ENGLISH_ARTICLES.sub(" ", _without(text.lower(), _is_ascii_punctuation)).split()
    if normalisation != "mlqa":
        raise SettingsError(f"normalisation {normalisation!r}: squad or mlqa expected")
    plain = _without(text.lower(), _is_punctuation)
    articles = _ARTICLES.get(language)
    if articles is not None:
        plain = articles.sub(" ", plain)
    return plain.split() if language != "zh" else _split_han(plain)


def _best(golds: Iterable[str], score: Callable[[str], float]) -> float:
    scores = [float(score(gold)) for gold in golds]
    if not scores:
        raise SettingsError("an answer is scored against gold answers; there is none")
    return max(scores)


def _f1(found: list[str], gold: list[str]) -> float:
    common = sum((Counter(found) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(found), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def _without(text: str, dropped: Callable[[str], bool]) -> str:
    return "".join(character for character in text if not dropped(character))


def _is_ascii_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


def _split_han(text: str) -> list[str]:
    spaced = "".join(f" {c} " if _HAN_FIRST <= c <= _HAN_LAST else c for c in text)
    return spaced.split()
