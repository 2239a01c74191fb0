"""Token ids of texts by way of their words: each distinct word is cut into tokens once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, repeat
from typing import Any, Self

import numpy as np

from clrelkt.encoders.word_rules import WordRules

__all__ = ["WordTable", "spliced"]

_WORDS = 500_000
_CHARACTERS = 16 * _WORDS
_LONGEST = 64
_LONG_ON_AVERAGE = 20
_BLOCK = 256
_BEFORE, _BEHIND, _WHOLE = range(3)
_UNMET = -1


class WordTable:
    """The words that a tokenizer has met, with their token ids; texts to ids through them.

    The ids are those of the tokenizer itself, whatever a text holds: it is asked for a text whole
    where its words do not stand for themselves (see WordRules). A text of words of more than 20
    characters on average, as without spaces between words, or with a word of more than 64, is cut
    whole, too, and never kept.

    It keeps at most ``most_words`` words, of 8 million characters in all, and forgets them all when
    there would be more: which words are frequent changes with the language of the texts, and what
    is met again is soon known again. Half a million words of nine letters take about 100 MB.

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
        self._most_words = most_words
        self._lock = threading.Lock()
        self._met = _MetWords(*self._marks)

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
        met, numbers = self._numbered(" ".join(texts).split(" "))
        firsts = counts.cumsum() - counts
        whole |= np.logical_or.reduceat(numbers == _WHOLE, firsts)
        flat, lengths = met.gathered(numbers, counts)
        return flat, lengths, whole

    def _numbered(self, words: list[str]) -> tuple[_MetWords, np.ndarray]:
        """Return the number of each word, and whose numbers these are."""
        met = self._met
        numbers = met.numbered(words)
        unmet = np.flatnonzero(numbers == _UNMET).tolist()
        if not unmet:
            return met, numbers
        unknown = [words[place] for place in unmet]
        now = self._learned(met, unknown, words)
        numbers = now.numbered(words) if now is not met else numbers
        if now is met:
            numbers[unmet] = now.numbered(unknown)
        # What is never kept.
        numbers[numbers == _UNMET] = _WHOLE
        return now, numbers

    def _learned(self, seen: _MetWords, unknown: list[str], words: list[str]) -> _MetWords:
        """Return what knows all words but those that are too long; ``seen`` lacks ``unknown``."""
        with self._lock:
            met = self._met
            new = met.lacking(unknown if met is seen else words)
            if not met.has_room(new, self._most_words):
                met = _MetWords(*self._marks)
                new = met.lacking(words)
            if new:
                apart = self._rules.apart(new)
                known = list(compress(new, apart))
                cut = self._backend.encode_batch_fast(known, add_special_tokens=False)
                met.add(new, apart, [one.ids for one in cut])
            self._met = met
            return met


class _Numbers(dict[str, int]):
    def __missing__(self, word: str) -> int:
        return _UNMET


class _MetWords:
    """Numbers of words, and the ids of each number.

    It only grows, and by one thread at a time. A word gets its number when all else is in its
    place, so that others can read without a lock.
    """

    def __init__(self, before: Sequence[int], behind: Sequence[int]) -> None:
        self._numbers = _Numbers()
        self._characters = 0
        self._ids = _Growing(np.int32)
        self._starts = _Growing(np.int64)
        self._lengths = _Growing(np.int64)
        self._append([before, behind, ()])

    def __len__(self) -> int:
        return len(self._numbers)

    def numbered(self, words: Sequence[str]) -> np.ndarray:
        """Return the number of each word; ``_UNMET`` where it has none."""
        number = self._numbers.__getitem__
        return np.fromiter(map(number, words), dtype=np.int64, count=len(words))

    def lacking(self, words: Iterable[str]) -> list[str]:
        """Return the distinct words that have no number and are not too long for one."""
        known = self._numbers
        return [
            word for word in dict.fromkeys(words) if word not in known and len(word) <= _LONGEST
        ]

    def has_room(self, new: Sequence[str], most_words: int) -> bool:
        """Whether it may know ``new``, too. When it is empty it may know them however many."""
        characters = self._characters + sum(map(len, new))
        fits = len(self) + len(new) <= most_words and characters <= _CHARACTERS
        return fits or not len(self)

    def add(
        self, words: Sequence[str], apart: Sequence[bool], ids: Sequence[Sequence[int]]
    ) -> None:
        """Take words in; ``ids`` are those of words that stand apart, others have none."""
        first = self._append(ids)
        numbers = iter(range(first, first + len(ids)))
        own = [next(numbers) if alone else _WHOLE for alone in apart]
        self._characters += sum(map(len, words))
        self._numbers.update(zip(words, own, strict=True))

    def gathered(self, numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of texts of ``counts`` words each, flat, and their number of each text.

        The marks stand around each text.
        """
        firsts = counts.cumsum() - counts + 2 * np.arange(len(counts))
        lasts = firsts + counts + 1
        is_word = np.ones(len(numbers) + 2 * len(counts), dtype=np.bool_)
        is_word[firsts] = is_word[lasts] = False
        marked = np.empty(len(is_word), dtype=np.int64)
        marked[is_word] = numbers
        marked[firsts], marked[lasts] = _BEFORE, _BEHIND
        lengths = self._lengths.values[marked]
        ends = lengths.cumsum()
        places = np.repeat(self._starts.values[marked] - ends + lengths, lengths)
        places += np.arange(len(places))
        return self._ids.values[places].astype(np.int64), np.add.reduceat(lengths, firsts)

    def _append(self, ids: Sequence[Sequence[int]]) -> int:
        """Add the ids of further numbers; return the first one."""
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = [one for own in ids for one in own]
        self._starts.extend(self._ids.used + lengths.cumsum() - lengths)
        self._ids.extend(flat)
        self._lengths.extend(lengths)
        return self._lengths.used - len(ids)


class _Growing:
    """An array that grows behind; what was in it stays where it is."""

    def __init__(self, dtype: Any) -> None:
        self.values = np.zeros(1024, dtype=dtype)
        self.used = 0

    def extend(self, more: Any) -> None:
        """Put numbers behind the others."""
        used = self.used + len(more)
        if used > len(self.values):
            larger = np.zeros(max(used, 2 * len(self.values)), dtype=self.values.dtype)
            larger[: self.used] = self.values[: self.used]
            self.values = larger
        self.values[self.used : used] = more
        self.used = used


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
