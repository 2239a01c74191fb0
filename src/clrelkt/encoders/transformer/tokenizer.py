"""Tokenizers of Hugging Face: texts to token ids, and nothing cut off."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from typing import Any, Self

import numpy as np
import torch

from clrelkt.encoders.pieces import NewPieces
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.tokenizer import refuse_lone_surrogates
from clrelkt.encoders.words.table import WordTable, spliced
from clrelkt.errors import EncoderError
from clrelkt.text.passages import split_passages

__all__ = ["Marks", "TransformerTokenizer"]

_SMALL = 8
_LANGUAGE = "en"
"""Whose rules split sentences: texts do not say which language they are in."""


class Marks:
    """The token ids that a tokenizer puts before and behind every text."""

    def __init__(self, before: Sequence[int], behind: Sequence[int]) -> None:
        self.before = tuple(before)
        self.behind = tuple(behind)

    def __len__(self) -> int:
        return len(self.before) + len(self.behind)

    def passage_starts(self, ids: np.ndarray) -> np.ndarray:
        """Return where passages begin in the ids of one text, ascending, the first at 0.

        A passage ends with the marks behind it and the next begins with those before it.
        """
        seam = np.array(self.behind + self.before, dtype=np.int64)
        if not len(seam) or len(ids) < len(seam):
            return np.zeros(1, dtype=np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(ids, len(seam))
        seams = np.flatnonzero((windows == seam).all(1)) + len(self.behind)
        return np.concatenate([[0], seams[(seams > 0) & (seams < len(ids))]])


@dataclass(frozen=True)
class _Source:
    """A tokenizer of transformers, the fast one behind it, and what is asked of it often."""

    tokenizer: Any
    backend: Any
    pieces: int

    @classmethod
    def of(cls, tokenizer: Any) -> _Source:
        return cls(tokenizer, _unlimited(tokenizer), max(tokenizer.get_vocab().values()) + 1)

    def encode(self, texts: Sequence[str], *, marks: bool = True) -> list[list[int]]:
        try:
            if self.backend is None:
                found = self.tokenizer(list(texts), add_special_tokens=marks, truncation=False)
                ids: list[list[int]] = found["input_ids"]
                return ids
            if len(texts) < _SMALL:
                # Threads cost more than a few texts.
                found = [self.backend.encode(text, add_special_tokens=marks) for text in texts]
            else:
                found = self.backend.encode_batch_fast(list(texts), add_special_tokens=marks)
            return [encoding.ids for encoding in found]
        except (TypeError, UnicodeError):
            refuse_lone_surrogates(texts)
            raise

    def flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts one behind the other, and their number of each text."""
        if len(texts) < _SMALL or self.words is None or not self.words.pays(len(texts)):
            return _flattened(self.encode(texts))
        try:
            return self.words.ids(texts)
        except (TypeError, UnicodeError):
            refuse_lone_surrogates(texts)
            raise

    @cached_property
    def words(self) -> WordTable | None:
        """What has met the words of texts before; None where words cannot be cut apart.

        It needs numba (``pip install 'clrelkt[gpu]'``).
        """
        if self.backend is None or find_spec("numba") is None:
            return None
        return WordTable.of(self.backend, (self.marks.before, self.marks.behind))

    def scored_pieces(self) -> list[tuple[str, float]]:
        model = self._unigram()["model"]
        return [(str(piece), float(score)) for piece, score in model["vocab"]]

    def grown(self, new: NewPieces) -> _Source:
        table = self._unigram()
        vocabulary = table["model"]["vocab"]
        beyond = {token["id"]: token["content"] for token in table["added_tokens"]}
        # A piece's id is its place: tokens that were added behind the vocabulary become part of it.
        while len(vocabulary) < self.pieces:
            if len(vocabulary) not in beyond:
                raise EncoderError(
                    f"the tokenizer has no token with id {len(vocabulary)}, but one with id "
                    f"{self.pieces - 1}: its vocabulary cannot grow"
                )
            vocabulary.append([beyond[len(vocabulary)], 0.0])
        vocabulary += [list(both) for both in zip(new.pieces, new.scores, strict=True)]
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer._tokenizer = type(self.backend).from_str(json.dumps(table, ensure_ascii=False))
        return _Source(tokenizer, _unlimited(tokenizer), len(vocabulary))

    def _unigram(self) -> dict[str, Any]:
        table = (
            {} if self.backend is None else json.loads(self.tokenizer.backend_tokenizer.to_str())
        )
        kind = table.get("model", {}).get("type")
        if kind != "Unigram" or "\u2581" not in {piece for piece, _ in table["model"]["vocab"]}:
            raise EncoderError(
                f"a vocabulary of kind {kind or type(self.tokenizer).__name__} cannot get new "
                "pieces; only those of unigram models can (as in mUSE, XLM-R and what is made from "
                "it: multilingual-e5, BGE-M3)"
            )
        return dict(table)

    @cached_property
    def marks(self) -> Marks:
        # Between the marks of an empty text stands nothing; a letter tells which are before it.
        empty, letter = self.encode(["", "a"])
        before = 0
        while before < len(empty) and empty[before] == letter[before]:
            before += 1
        behind = len(empty) - before
        if letter[len(letter) - behind :] != empty[before:]:
            return Marks((), ())
        return Marks(empty[:before], empty[before:])


class TransformerTokenizer:
    """Texts to lists of token ids, marks included.

    A text of more than ``max_length`` tokens becomes several passages of whole sentences, one
    behind the other in its list, each with the prompt and the marks of its own; a sentence that is
    longer is cut between words, or, where a word is too long, between characters. ``rows``, when
    given, are the token ids that exist, in ascending order, shape (rows,): ids are then indices
    into them.
    """

    def __init__(self, source: _Source, max_length: int, rows: torch.Tensor | None = None) -> None:
        self._source = source
        self.max_length = max_length
        self.rows = rows
        if max_length <= len(source.marks):
            raise EncoderError(
                f"a maximum length of {max_length} tokens leaves no room beside the "
                f"{len(source.marks)} marks that the tokenizer adds"
            )
        self._index: np.ndarray | None = None
        if rows is not None:
            self._index = np.full(source.pieces, -1, dtype=np.int64)
            self._index[rows.numpy()] = np.arange(rows.shape[0])

    @classmethod
    def of(cls, tokenizer: Any, max_length: int) -> Self:
        """Return the tokenizer around one of Hugging Face's transformers."""
        return cls(_Source.of(tokenizer), max_length)

    @property
    def source(self) -> Any:
        """The tokenizer of transformers."""
        return self._source.tokenizer

    @property
    def pieces(self) -> int:
        """Number of token ids without ``rows``; every such id is below it."""
        return self._source.pieces

    @property
    def unknown_id(self) -> int:
        """The token that stands for what no other token has; -1 where there is none."""
        return -1 if self.source.unk_token_id is None else int(self.source.unk_token_id)

    @property
    def marks(self) -> Marks:
        """The marks around a text, as ids of this tokenizer."""
        own = self._source.marks
        if self._index is None:
            return own
        return Marks(self._index[list(own.before)].tolist(), self._index[list(own.behind)].tolist())

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Return one list of token ids a text, with ``prompt`` before each of its passages.

        Raises:
            EncoderError: a text holds a token outside ``rows``, or half of a surrogate pair.
        """
        if self._index is None and len(texts) < _SMALL:
            # Arrays cost more than a question.
            few = self._source.encode(_with_prompt(texts, prompt))
            if max(map(len, few), default=0) <= self.max_length:
                return few
        flat, lengths = self._flat(texts, prompt)
        ids: list[int] = flat.tolist()
        ends = lengths.cumsum()
        limits = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
        return [ids[start:end] for start, end in limits]

    def batch(self, texts: Sequence[str], prompt: str = "") -> RaggedBatch:
        """Return the token ids of texts as a batch.

        Raises:
            EncoderError: as the call does.
        """
        flat, lengths = self._flat(texts, prompt)
        return RaggedBatch(torch.from_numpy(flat), torch.from_numpy(lengths))

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """Return one list of token ids a text, without the marks; ``rows`` is not looked at."""
        return self._source.encode(texts, marks=False)

    def scored_pieces(self) -> list[tuple[str, float]]:
        """Return every piece and its score, in id order; marks and the like have 0.

        Raises:
            EncoderError: it is no unigram model, the only kind of vocabulary that can grow.
        """
        return self._source.scored_pieces()

    def grown(self, new: NewPieces) -> Self:
        """Return the tokenizer with more pieces; their ids follow the last old one's."""
        return type(self)(self._source.grown(new), self.max_length)

    def restricted_to(self, rows: torch.Tensor) -> Self:
        """Return a tokenizer whose ids are indices into ``rows``."""
        return type(self)(self._source, self.max_length, rows.cpu())

    def shares_source(self, other: Self) -> bool:
        """Whether the other one is of the same tokenizer."""
        return self._source is other._source

    def with_max_length(self, max_length: int) -> Self:
        """Return the same tokenizer with another limit."""
        return type(self)(self._source, max_length, self.rows)

    def _flat(self, texts: Sequence[str], prompt: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts one behind the other, and their number of each text."""
        flat, lengths = self._source.flat(_with_prompt(texts, prompt))
        too_long = np.flatnonzero(lengths > self.max_length).tolist()
        if too_long:
            cut = {
                place: list(chain.from_iterable(self._split(texts[place], prompt)))
                for place in too_long
            }
            flat, lengths = spliced(flat, lengths, cut)
        if self._index is not None:
            flat = self._index[flat]
            if len(flat) and flat.min() < 0:
                place = np.searchsorted(lengths.cumsum(), flat.argmin(), side="right")
                raise EncoderError(
                    f"the text {texts[int(place)][:60]!r} holds a token outside the compact "
                    "vocabulary of this run"
                )
        return flat, lengths

    def _split(self, text: str, prompt: str) -> list[list[int]]:
        """Return the ids of the text's passages."""
        return self._source.encode(self._passages(text, prompt))

    def _passages(self, text: str, prompt: str) -> list[str]:
        """Return the text in pieces of at most ``max_length`` tokens, prompt and marks included."""
        room = max(1, self.max_length - len(self._source.encode([prompt])[0]))
        return [prompt + passage for passage in self._fitting(text, prompt, room)]

    def _fitting(self, text: str, prompt: str, budget: int) -> list[str]:
        spans = split_passages(text, _LANGUAGE, self._count, budget)
        parts = [part for span in spans if (part := text[span.start : span.stop].strip())]
        lengths = map(len, self._source.encode([prompt + part for part in parts]))
        found: list[str] = []
        for part, length in zip(parts, lengths, strict=True):
            # Joined, sentences can have a token or two more than apart.
            fits = length <= self.max_length or budget == 1
            found += [part] if fits else self._fitting(part, prompt, max(1, budget * 7 // 8))
        return found

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.segment(texts)]


def _unlimited(source: Any) -> Any:
    """Return the fast tokenizer behind ``source``, without padding and truncation, if there is."""
    backend = getattr(source, "backend_tokenizer", None)
    if backend is None:
        return None
    backend = copy.deepcopy(backend)
    backend.no_padding()
    backend.no_truncation()
    return backend


def _flattened(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = chain.from_iterable(ids)
    return np.fromiter(flat, dtype=np.int64, count=int(lengths.sum())), lengths


def _with_prompt(texts: Sequence[str], prompt: str) -> list[str]:
    return [prompt + text for text in texts] if prompt else list(texts)
