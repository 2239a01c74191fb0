"""The words of many texts, on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from clrelkt.cores import cores
from clrelkt.text.words import WordTokenizer

__all__ = ["words_of"]

# Starting processes takes seconds, in which one core finds the words of about this many characters.
_CHARACTERS_WORTH_PROCESSES = 10_000_000
_CHARACTERS_AT_ONCE = 1_000_000


def words_of(texts: Sequence[str], words: WordTokenizer) -> list[list[str]]:
    """Return what ``words.words(texts)`` does; long work is split over processes."""
    processes = cores()
    parts = _parts(texts)
    if processes == 1 or sum(map(len, texts)) < _CHARACTERS_WORTH_PROCESSES:
        return words.words(texts)
    # Not forked: a copy of a process with threads can stop for ever.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found: list[list[str]] = []
        shared: dict[str, str] = {}
        for part in pool.map(words.words, parts):
            # One object a word, as far as memory is concerned.
            found += [[shared.setdefault(word, word) for word in text] for text in part]
    return found


def _parts(texts: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > _CHARACTERS_AT_ONCE:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text)
    return parts
