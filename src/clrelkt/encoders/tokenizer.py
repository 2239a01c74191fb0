"""SentencePiece, as mUSE uses it."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import sentencepiece
import torch

from clrelkt.cores import cores
from clrelkt.encoders.pieces import NewPieces
from clrelkt.errors import EncoderError

__all__ = ["SentencePieceTokenizer", "refuse_lone_surrogates"]

# Where SentencePiece gives arrays there is no need to make a list of Python's integers first.
_ARRAYS: dict[str, Any] = (
    {"return_type": "numpy"}
    if "return_type" in inspect.signature(sentencepiece.SentencePieceProcessor.encode).parameters
    else {}
)


class SentencePieceTokenizer:
    """Texts to lists of token ids, with the begin and end marks around them and nothing cut off.

    ``model`` holds the bytes of a SentencePiece model. ``rows``, when given, are the token ids
    that exist, in ascending order, shape (rows,): ids are then indices into them.
    """

    def __init__(self, model: bytes, rows: torch.Tensor | None = None) -> None:
        self.model = model
        self.rows = rows
        if not model:
            raise EncoderError("not a SentencePiece model: it is empty")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise EncoderError(f"not a SentencePiece model: {error}") from error
        self._threads = cores()
        self._index: np.ndarray | None = None
        if rows is not None:
            self._index = np.full(int(rows.max()) + 1, -1, dtype=np.int64)
            self._index[rows.numpy()] = np.arange(rows.shape[0])

    @property
    def pieces(self) -> int:
        """Number of pieces of the SentencePiece model; every token id is below it."""
        return int(self._processor.get_piece_size())

    @property
    def unknown_id(self) -> int:
        """The piece that stands for characters that no other piece has."""
        return int(self._processor.unk_id())

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return one list of token ids a text, the marks included.

        Raises:
            EncoderError: a text holds a token outside ``rows``, or half of a surrogate pair.
        """
        return [row.tolist() for row in self.arrays(texts)]

    def arrays(self, texts: Sequence[str], *, threads: int | None = None) -> list[np.ndarray]:
        """Return one array of token ids a text, as the call does; much faster for many texts.

        ``threads`` work on them; None: as many as there are cores.

        Raises:
            EncoderError: as the call does.
        """
        try:
            found = self._processor.encode(
                list(texts),
                add_bos=True,
                add_eos=True,
                num_threads=threads or self._threads,
                **_ARRAYS,
            )
        except TypeError:
            refuse_lone_surrogates(texts)
            raise
        ids = [np.asarray(row, dtype=np.int32) for row in found]
        if self._index is None:
            return ids
        return [self._restricted(text, row) for text, row in zip(texts, ids, strict=True)]

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """Return one list of token ids a text, without the marks; ``rows`` is not looked at."""
        ids: list[list[int]] = self._processor.encode(list(texts), num_threads=self._threads)
        return ids

    def scored_pieces(self) -> list[tuple[str, float]]:
        """Return every piece and its score, in id order; marks and the unknown piece have 0."""
        processor = self._processor
        return [
            (processor.id_to_piece(number), processor.get_score(number))
            for number in range(self.pieces)
        ]

    def grown(self, new: NewPieces) -> SentencePieceTokenizer:
        """Return the tokenizer with more pieces; their ids follow the last old one's."""
        return SentencePieceTokenizer(
            self.model
            + b"".join(
                _field(1, _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score))
                for piece, score in zip(new.pieces, new.scores, strict=True)
            )
        )

    def restricted_to(self, rows: torch.Tensor) -> SentencePieceTokenizer:
        """Return a tokenizer whose ids are indices into ``rows``."""
        return SentencePieceTokenizer(self.model, rows.cpu())

    def _restricted(self, text: str, ids: np.ndarray) -> np.ndarray:
        assert self._index is not None
        if ids.max() >= self._index.shape[0] or (self._index[ids] < 0).any():
            raise EncoderError(
                f"the text {text[:60]!r} holds a token outside the compact vocabulary of this run"
            )
        found: np.ndarray = self._index[ids]
        return found


def refuse_lone_surrogates(texts: Sequence[str]) -> None:
    """Raise EncoderError for the first text that holds half of a surrogate pair."""
    for position, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EncoderError(
                f"text {position} ({text[:60]!r}) is not Unicode: character {error.start} is half "
                "of a surrogate pair. Remove it or put the other half back"
            ) from error


def _field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
