"""The seam between everything that needs vectors and everything that makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch

from clrelkt.encoders.ragged import RaggedBatch

__all__ = ["Encoder", "SaveForm", "TextKind", "TokenizingEncoder", "TrainableEncoder"]

SaveForm = Literal[
    "whole", "whole-float16", "delta", "delta-float16", "delta-int8", "delta-int6", "delta-int4"
]
"""How an encoder is written: every tensor, or only what differs from its published base.

float16 and int round the numbers to that many bits; the other forms are exact.
"""

TextKind = Literal["question", "passage"]
"""What a text is: some encoders put another prompt before a question than before a passage."""


@runtime_checkable
class Encoder(Protocol):
    """Text to unit vectors."""

    @property
    def name(self) -> str:
        """What a table calls it: ``muse``, or the folder that it was loaded from."""

    @property
    def weights(self) -> str:
        """Which weights it holds, so that a result can name them."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes of the languages it was trained on; empty where that is not known."""

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32, without gradients."""


@runtime_checkable
class TokenizingEncoder(Encoder, Protocol):
    """An encoder that shows its tokens."""

    def tokenize(self, texts: Sequence[str], kind: TextKind = "passage") -> RaggedBatch:
        """Turn texts into token ids (on the CPU), one run of ids a text."""


@runtime_checkable
class TrainableEncoder(TokenizingEncoder, Protocol):
    """An encoder whose parameters can be trained, checkpointed and saved."""

    @property
    def save_forms(self) -> tuple[SaveForm, ...]:
        """How it can be saved, the one to choose where nothing else is said first."""

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""

    def __call__(self, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension), with gradients."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Every parameter under its name."""

    def compact(self, token_ids: torch.Tensor) -> Self:
        """Return a copy whose vocabulary is only the rows that ``token_ids`` name.

        The copy tokenises texts made of those tokens and gives the same vectors for them.
        """

    def write_back(self, compacted: Self) -> Self:
        """Return this encoder with every parameter of ``compacted`` written into its place."""

    def renamed(self, name: str) -> Self:
        """Return the same encoder under another name (parameters are shared)."""

    def to(self, device: torch.device | str) -> Self:
        """Move it to ``device``."""

    def save(
        self,
        folder: Path,
        *,
        form: SaveForm = "whole",
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """Write it to ``folder``, whole or as the difference from its base.

        ``records`` are JSON values to be written beside it, by file name.
        """
