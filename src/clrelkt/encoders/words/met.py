"""Words and their token ids in a hash table of bytes, looked up by code that numba compiles.

A dictionary of Python would do the same and hold Python's lock all the while: other threads, such
as one that starts a GPU's kernels, would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

__all__ = ["UNMET", "FoundWords", "MetWords", "is_compiled"]

UNMET = -1
"""Stands for a word that is not known."""
_APART_FROM_NONE = -2
"""Stands for a word whose ids depend on the text."""
_SPACE = 32
_FIRST_SLOTS = 1 << 12


@dataclass(frozen=True)
class FoundWords:
    """The words of joined texts, in order.

    ``rows`` are what is known of each, ``starts`` (words + 1,) where each begins in ``joined``; a
    space stands before the next.
    """

    joined: np.ndarray
    starts: np.ndarray
    rows: np.ndarray

    def words(self, chosen: np.ndarray) -> list[str]:
        """Return some words; ``chosen`` holds a truth value for each."""
        places = np.flatnonzero(chosen)
        limits = zip(self.starts[places].tolist(), self.starts[places + 1].tolist(), strict=True)
        data = self.joined.tobytes()
        return [data[start : end - 1].decode() for start, end in limits]


class _Table(NamedTuple):
    """All arrays at one moment. Words are added behind the ``used`` that are in it."""

    slots: np.ndarray
    spelling: np.ndarray
    spelling_starts: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    id_starts: np.ndarray
    used: int


class MetWords:
    """Words that have been met, and the token ids of each that has some of its own.

    One thread at a time may add words; others may look them up meanwhile.
    """

    def __init__(self) -> None:
        self._spelling = _Rows(np.uint8)
        self._ids = _Rows(np.int32)
        self._rows = _Growing(np.int32)
        self._characters = 0
        self._table = self._now(np.full(_FIRST_SLOTS, -1, dtype=np.int32))

    def __len__(self) -> int:
        return self._table.used

    def has_room(self, new: Sequence[str], words: int, characters: int) -> bool:
        """Whether with ``new`` it would keep to limits. When it is empty it always would."""
        fits = len(self) + len(new) <= words
        fits &= self._characters + sum(map(len, new)) <= characters
        return fits or not len(self)

    def add(self, words: Sequence[str], ids: Sequence[Sequence[int] | None]) -> None:
        """Take in words that are not known yet; None: its ids depend on the text."""
        first, slots = len(self), self._table.slots
        self._characters += sum(map(len, words))
        self._spelling.extend([word.encode() for word in words])
        known = [own for own in ids if own is not None]
        numbers = iter(range(len(self._ids), len(self._ids) + len(known)))
        self._ids.extend(known)
        self._rows.extend([_APART_FROM_NONE if own is None else next(numbers) for own in ids])
        if 2 * self._rows.used > len(slots):
            slots = np.full(1 << (4 * self._rows.used).bit_length(), -1, dtype=np.int32)
            first = 0
        _compiled().insert(slots, *self._spelling.table, first, self._rows.used)
        self._table = self._now(slots)

    def found(self, joined: np.ndarray, count: int) -> FoundWords:
        """Look up the words of ``joined``, UTF-8 of texts joined by spaces; they are ``count``."""
        rows = np.empty(count, dtype=np.int32)
        starts = np.empty(count + 1, dtype=np.int64)
        table = self._table
        _compiled().find(
            joined,
            table.slots,
            table.spelling,
            table.spelling_starts,
            table.rows,
            table.used,
            starts,
            rows,
        )
        return FoundWords(joined, starts, rows)

    def gathered(
        self,
        rows: np.ndarray,
        counts: np.ndarray,
        whole: np.ndarray,
        before: np.ndarray,
        behind: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the ids of texts of ``counts`` words each, flat, and their number of each text.

        Marks ``before`` and ``behind`` stand around each text. The third are the texts that must be
        cut whole: those of ``whole``, and those with a word without ids.
        """
        lengths = np.empty(len(counts), dtype=np.int64)
        whole = whole.copy()
        code, table = _compiled(), self._table
        code.measure(rows, counts, table.id_starts, len(before) + len(behind), lengths, whole)
        flat = np.empty(int(lengths.sum()), dtype=np.int64)
        code.gather(rows, counts, table.ids, table.id_starts, before, behind, flat)
        return flat, lengths, whole

    def _now(self, slots: np.ndarray) -> _Table:
        spelling, ids = self._spelling.table, self._ids.table
        return _Table(slots, *spelling, self._rows.values, *ids, self._rows.used)


class _Growing:
    """An array that grows behind."""

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


class _Rows:
    """Rows of various lengths one behind the other."""

    def __init__(self, dtype: Any) -> None:
        self._flat = _Growing(dtype)
        self._starts = _Growing(np.int64)
        self._starts.extend([0])

    def __len__(self) -> int:
        return self._starts.used - 1

    @property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows, and where each begins."""
        return self._flat.values, self._starts.values

    def extend(self, rows: Sequence[Sequence[int]]) -> None:
        """Put rows behind the others."""
        sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        self._starts.extend(self._flat.used + sizes.cumsum())
        self._flat.extend([one for row in rows for one in row])


class _Code(NamedTuple):
    insert: Callable[..., None]
    find: Callable[..., None]
    measure: Callable[..., None]
    gather: Callable[..., None]


@cache
def _compiled() -> _Code:
    import numba

    parts = (_insert, _find, _measure, _gather)
    try:
        return _Code(*(numba.njit(nogil=True, cache=True)(part) for part in parts))
    except RuntimeError:
        # There is no folder to keep compiled code in.
        return _Code(*(numba.njit(nogil=True)(part) for part in parts))


def is_compiled() -> bool:
    """Whether the code for looking words up has been made in this process."""
    return _compiled.cache_info().currsize > 0


# FNV-1a, 64 bits, folded once: slots are taken by the lower bits.
_BASIS = np.uint64(14695981039346656037)
_PRIME = np.uint64(1099511628211)
_FOLD = np.uint64(29)


def _insert(
    slots: np.ndarray, spelling: np.ndarray, starts: np.ndarray, first: int, end: int
) -> None:
    """Give slots to the words from ``first`` on."""
    mask = np.uint64(len(slots) - 1)
    for word in range(first, end):
        code = _BASIS
        for place in range(starts[word], starts[word + 1]):
            code = (code ^ np.uint64(spelling[place])) * _PRIME
        slot = (code ^ (code >> _FOLD)) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word


def _find(
    joined: np.ndarray,
    slots: np.ndarray,
    spelling: np.ndarray,
    spelling_starts: np.ndarray,
    known: np.ndarray,
    count: int,
    starts: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Fill in where the words of ``joined`` begin and what is known of them."""
    mask = np.uint64(len(slots) - 1)
    start = 0
    for word in range(len(rows)):
        code = _BASIS
        end = start
        while end < len(joined) and joined[end] != _SPACE:
            code = (code ^ np.uint64(joined[end])) * _PRIME
            end += 1
        slot = (code ^ (code >> _FOLD)) & mask
        row = UNMET
        while slots[slot] >= 0:
            other = slots[slot]
            # Another thread may be adding words that are not in these arrays.
            if other < count:
                begin = spelling_starts[other]
                size = spelling_starts[other + 1] - begin
                same = 0 if size == end - start else -1
                while 0 <= same < size and spelling[begin + same] == joined[start + same]:
                    same += 1
                if same == size:
                    row = known[other]
                    break
            slot = (slot + np.uint64(1)) & mask
        starts[word] = start
        rows[word] = row
        start = end + 1
    starts[len(rows)] = start


def _measure(
    rows: np.ndarray,
    counts: np.ndarray,
    id_starts: np.ndarray,
    marks: int,
    lengths: np.ndarray,
    whole: np.ndarray,
) -> None:
    """Fill in how many ids each text has, and which texts have a word without ids."""
    word = 0
    for text in range(len(counts)):
        length = marks
        for place in range(word, word + counts[text]):
            if rows[place] < 0:
                whole[text] = True
            else:
                length += id_starts[rows[place] + 1] - id_starts[rows[place]]
        lengths[text] = length
        word += counts[text]


def _gather(
    rows: np.ndarray,
    counts: np.ndarray,
    ids: np.ndarray,
    id_starts: np.ndarray,
    before: np.ndarray,
    behind: np.ndarray,
    flat: np.ndarray,
) -> None:
    """Fill in the ids of all texts."""
    word = at = 0
    for text in range(len(counts)):
        for mark in before:
            flat[at] = mark
            at += 1
        for place in range(word, word + counts[text]):
            if rows[place] >= 0:
                for one in range(id_starts[rows[place]], id_starts[rows[place] + 1]):
                    flat[at] = ids[one]
                    at += 1
        word += counts[text]
        for mark in behind:
            flat[at] = mark
            at += 1
