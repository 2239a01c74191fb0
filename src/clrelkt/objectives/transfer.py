"""Language knowledge transfer: three terms that tie a student to a frozen teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from clrelkt.errors import SettingsError

__all__ = ["TransferTerms", "TransferWeights", "transfer_loss"]


@dataclass(frozen=True, slots=True)
class TransferWeights:
    """Weights of the three terms (the paper's λq, λd, λqd) and the scale of their sum."""

    question: float
    document: float
    document_question: float
    scale: float = 1000.0

    def __post_init__(self) -> None:
        weights = (self.question, self.document, self.document_question)
        finite = all(map(math.isfinite, (*weights, self.scale)))
        if not finite or min(weights) < 0 or max(weights) == 0 or self.scale <= 0:
            raise SettingsError(
                f"transfer weights {weights} with scale {self.scale}: finite numbers expected, no "
                "weight negative, one above 0, and the scale above 0"
            )


@dataclass(frozen=True, slots=True)
class TransferTerms:
    """The three terms, each a scalar before weighting, and their weighted sum."""

    question: torch.Tensor
    document: torch.Tensor
    document_question: torch.Tensor
    total: torch.Tensor


def transfer_loss(
    *,
    teacher_question: torch.Tensor,
    teacher_document: torch.Tensor,
    student_question: torch.Tensor,
    student_document: torch.Tensor,
    weights: TransferWeights,
) -> TransferTerms:
    """Return the loss of the transfer stage (CL-ReLKT, section 3.3).

    ``teacher_question`` holds the teacher's vectors of the questions in English,
    ``student_question`` the student's vectors of the same questions in another language; the two
    document tensors hold teacher and student vectors of their gold documents. All have shape
    (pairs, dimension), and each term is the mean square over pairs and dimensions:

    - question: T(q_en) and S(q_x),
    - document: T(d) and S(d),
    - document-question: T(d) and S(q_x).
    """
    question = functional.mse_loss(student_question, teacher_question)
    document = functional.mse_loss(student_document, teacher_document)
    document_question = functional.mse_loss(student_question, teacher_document)
    total = weights.scale * (
        weights.question * question
        + weights.document * document
        + weights.document_question * document_question
    )
    return TransferTerms(question, document, document_question, total)
