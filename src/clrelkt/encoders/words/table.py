"""Token ids of texts by way of their words: each distinct word is cut into tokens once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import compress, repeat
from typing import Any, Self

import numpy as np

from clrelkt.encoders.words.met import UNMET, MetWords, is_compiled
from clrelkt.encoders.words.rules import WordRules

__all__ = ["WordTable", "spliced"]

_WORDS = 500_000
_CHARACTERS = 16 * _WORDS
_LONGEST = 64
_LONG_ON_AVERAGE = 20
_BLOCK = 1024
_TEXTS_WORTH_COMPILING = 20_000


class WordTable:
    """The words that a tokenizer has met, with their token ids; texts to ids through them.

    The ids are those of the tokenizer itself, whatever a text holds: it is asked for a text whole
    where its words do not stand for themselves (see WordRules). A text of words of more than 20
    characters on average, as without spaces between words, or with a word of more than 64, is cut
    whole, too, and never kept.

    It keeps at most ``most_words`` words, of 8 million characters in all, and forgets them all when
    there would be more: which words are frequent changes with the language of the texts, and what
    is met again is soon known again. Half a million words of nine characters take some 35 MB.

    Several threads may use it at once. Copied or pickled it knows no words.
    """

    def __init__(
        self,
        backend: Any,
        rules: WordRules,
        marks: tuple[Sequence[int], Sequence[int]],
        most_words: int = _WORDS,
    ) -> None:
        self._backend = backend
        self._rules = rules
        self._marks = (tuple(marks[0]), tuple(marks[1]))
        self._around = [np.array(own, dtype=np.int64) for own in self._marks]
        self._most_words = most_words
        self._lock = threading.Lock()
        self._met = MetWords()
        self._asked = 0

    @classmethod
    def of(
        cls,
        backend: Any,
        marks: tuple[Sequence[int], Sequence[int]],
        most_words: int = _WORDS,
    ) -> Self | None:
        """Return the table of a tokenizer of the package ``tokenizers``, without any limit set.

        ``marks`` are the ids that it puts before and behind every text. None: it does not cut words
        independently, or puts other marks around them.
        """
        rules = WordRules.of(backend)
        inner = backend.encode("a", add_special_tokens=False).ids
        marked = [*marks[0], *inner, *marks[1]]
        # Were a mark among the ids, it could not be told which of the marks stand before.
        if rules is None or not inner or {*marks[0], *marks[1]} & set(inner):
            return None
        if backend.encode("a").ids != marked:
            return None
        return cls(backend, rules, marks, most_words)

    def __reduce__(self) -> tuple[Any, ...]:
        return WordTable.of, (self._backend, self._marks, self._most_words)

    def __len__(self) -> int:
        """Return how many words are known."""
        return len(self._met)

    def pays(self, count: int) -> bool:
        """Whether ``count`` more texts are quicker by way of their words.

        The first ones are not: the code for it takes seconds to compile.
        """
        self._asked += count
        return is_compiled() or self._asked > _TEXTS_WORTH_COMPILING

    def ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts one behind the other, and their number of each text.

        Both are int64; marks are included. Raises what ``tokenizers`` raises at half of a surrogate
        pair.
        """
        starts = range(0, len(texts), _BLOCK)
        blocks = [self._block(texts[start : start + _BLOCK]) for start in starts]
        if not blocks:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        flat, lengths, whole = (np.concatenate(part) for part in zip(*blocks, strict=True))
        places = np.flatnonzero(whole).tolist()
        if not places:
            return flat, lengths
        cut = self._backend.encode_batch_fast([texts[place] for place in places])
        others = {place: one.ids for place, one in zip(places, cut, strict=True)}
        return spliced(flat, lengths, others)

    def _block(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return flat ids, their number of each text, and which texts must be cut whole instead."""
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        counts = np.fromiter(map(str.count, texts, repeat(" ")), dtype=np.int64, count=len(texts))
        counts += 1
        whole = sizes > _LONG_ON_AVERAGE * counts
        if whole.any():
            texts = ["" if long else text for text, long in zip(texts, whole.tolist(), strict=True)]
            counts[whole] = 1
        joined, words = np.frombuffer(" ".join(texts).encode(), dtype=np.uint8), int(counts.sum())
        met = self._met
        found = met.found(joined, words)
        if (found.rows == UNMET).any():
            with self._lock:
                met = self._learned(joined, words)
            found = met.found(joined, words)
        return met.gathered(found.rows, counts, whole, *self._around)

    def _learned(self, joined: np.ndarray, words: int) -> MetWords:
        """Return what knows all words of joined texts but those that are too long."""
        found = self._met.found(joined, words)
        new = _short(found.words(found.rows == UNMET))
        if not self._met.has_room(new, self._most_words, _CHARACTERS):
            self._met = MetWords()
            new = _short(found.words(np.ones(words, dtype=np.bool_)))
        self._meet(new)
        return self._met

    def _meet(self, new: Sequence[str]) -> None:
        if not new:
            return
        apart = self._rules.apart(new)
        cut = self._backend.encode_batch_fast(list(compress(new, apart)), add_special_tokens=False)
        ids = iter([one.ids for one in cut])
        self._met.add(new, [next(ids) if alone else None for alone in apart])


def _short(words: Sequence[str]) -> list[str]:
    """Return the distinct words that are not too long to keep."""
    return [word for word in dict.fromkeys(words) if len(word) <= _LONGEST]


def spliced(
    flat: np.ndarray, lengths: np.ndarray, others: Mapping[int, Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat ids and their number of each text, with ``others`` in place of some texts'.

    ``others`` names texts in ascending order.
    """
    ends = lengths.cumsum()
    parts: list[Any] = []
    done = 0
    for place, own in others.items():
        parts += [flat[done : ends[place] - lengths[place]], np.array(own, dtype=np.int64)]
        done = ends[place]
    lengths = lengths.copy()
    lengths[list(others)] = [len(own) for own in others.values()]
    return np.concatenate([*parts, flat[done:]]), lengths
