"""What a stage works with, and what it must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Question
from clrelkt.encoders import TrainableEncoder
from clrelkt.training.bank import TextBank
from clrelkt.training.supplies import Supplies

__all__ = ["Material", "StageMethod"]


@dataclass(frozen=True)
class Material:
    """What a stage works with: training questions, the corpus around them, texts, and a seed.

    ``start`` is the encoder that the stage starts from; ``stage`` its number in the recipe;
    ``supplies`` the texts beside the corpus's own.
    """

    corpus: Corpus
    questions: tuple[Question, ...]
    bank: TextBank
    start: TrainableEncoder
    seed: int
    stage: int
    supplies: Supplies = field(default_factory=Supplies)


class StageMethod(Protocol):
    """Examples and loss of one stage.

    ``encoded_columns`` of the examples count towards a batch's token budget.
    """

    encoded_columns: int

    @property
    def notes(self) -> dict[str, int]:
        """How many questions yield no example, by reason."""

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        """Return the examples of an epoch, shape (examples, columns), int64."""

    def texts(self, examples: np.ndarray) -> np.ndarray:
        """Return the bank's rows that the loss of a batch needs, of any shape, int64."""

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        """Return the loss of a batch, a scalar.

        ``vectors`` has the shape of ``texts(examples)`` and one dimension more, the vector's.
        """
