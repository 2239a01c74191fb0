"""What it takes of an encoder to get new pieces of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch

from clrelkt.encoders.protocol import TrainableEncoder
from clrelkt.encoders.ragged import RaggedBatch

__all__ = ["GrowableEncoder", "NewPieces", "PieceTokenizer"]


@dataclass(frozen=True, slots=True)
class NewPieces:
    """Pieces to be added, each with its score (a logarithm of its probability), in id order."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.pieces)

    def without(self, numbers: Iterable[int]) -> NewPieces:
        """Return the pieces but for those with the given numbers."""
        gone = frozenset(numbers)
        kept = [number for number in range(len(self)) if number not in gone]
        return NewPieces(
            tuple(self.pieces[number] for number in kept),
            tuple(self.scores[number] for number in kept),
        )


class PieceTokenizer(Protocol):
    """A tokenizer with a unigram model: pieces with scores, a word's beginning marked by U+2581."""

    @property
    def rows(self) -> torch.Tensor | None:
        """The token ids that exist in a compact vocabulary; None where all do."""

    @property
    def pieces(self) -> int:
        """Number of token ids; every id is below it."""

    @property
    def unknown_id(self) -> int:
        """The token that stands for what no other token has."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return one list of token ids a text, the marks around it included."""

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """Return one list of token ids a text, without the marks."""

    def scored_pieces(self) -> list[tuple[str, float]]:
        """Return every piece and its score, in id order; marks and the like have 0.

        Raises:
            EncoderError: the vocabulary is of a kind that cannot grow.
        """

    def grown(self, new: NewPieces) -> Self:
        """Return the tokenizer with more pieces; their ids follow the last old one's."""


@runtime_checkable
class GrowableEncoder(TrainableEncoder, Protocol):
    """An encoder whose vocabulary can grow."""

    @property
    def tokenizer(self) -> PieceTokenizer:
        """Its tokenizer."""

    @property
    def embedding(self) -> torch.nn.Parameter:
        """Its embedding table, shape (rows, embedding)."""

    def with_table(
        self, table: torch.Tensor, tokenizer: PieceTokenizer, languages: Iterable[str]
    ) -> Self:
        """Return the encoder with another table and the tokenizer that goes with it.

        ``languages`` are added to those that it knows.
        """

    def vectors_with(self, table: torch.Tensor, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension), with ``table`` in its table's place."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say whether its parameters get gradients."""
