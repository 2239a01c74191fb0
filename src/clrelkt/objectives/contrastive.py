"""Softmax losses over vectors: what belongs together must score above what does not."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = [
    "anchor_loss",
    "distribution_loss",
    "paired_loss",
    "ranking_loss",
    "reverse_ranking_loss",
]


def ranking_loss(
    questions: torch.Tensor,
    candidates: torch.Tensor,
    gold: torch.Tensor,
    *,
    temperature: float,
    document_of: torch.Tensor | None = None,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of -log softmax of the gold candidate's score, a scalar (InfoNCE).

    ``questions`` (questions, dimension) and ``candidates`` (candidates, dimension) are unit
    vectors, a score is their cosine over ``temperature``. ``gold`` (questions,) numbers
    candidates; with ``document_of`` (candidates,), which numbers each candidate's document, it
    numbers documents, and a document's score is that of its best candidate, as in evaluation.
    ``excluded`` (questions, candidates), bool, marks candidates that are left out of the softmax;
    a gold candidate never is.
    """
    scores = questions @ candidates.T / temperature
    if excluded is not None:
        scores = scores.masked_fill(excluded, -torch.inf)
    if document_of is not None:
        scores = _best_of_document(scores, document_of)
    return functional.cross_entropy(scores, gold)


def _best_of_document(scores: torch.Tensor, document_of: torch.Tensor) -> torch.Tensor:
    # There are at most as many documents as candidates; to count them would wait for the GPU.
    best = torch.full_like(scores, -torch.inf)
    return best.scatter_reduce(1, document_of.expand_as(scores), scores, "amax")


def reverse_ranking_loss(
    questions: torch.Tensor, candidates: torch.Tensor, gold: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Return the loss of the other direction: each gold candidate picks its question, a scalar.

    For every question the softmax is over it and the batch's questions with another gold.
    Arguments are those of ``ranking_loss``; ``gold`` numbers candidates.
    """
    scores = questions @ candidates[gold].T / temperature
    own = torch.eye(len(gold), dtype=torch.bool, device=gold.device)
    also_right = (gold[:, None] == gold[None, :]) & ~own
    columns = scores.masked_fill(also_right, -torch.inf)
    return functional.cross_entropy(columns.T, torch.arange(len(gold), device=gold.device))


def paired_loss(
    first: torch.Tensor, second: torch.Tensor, *, temperature: float, same: torch.Tensor
) -> torch.Tensor:
    """Return the in-batch softmax loss of pairs, the mean of both directions, a scalar.

    ``first`` and ``second`` (pairs, dimension) are unit vectors; row ``i`` of one belongs to row
    ``i`` of the other. ``same`` (pairs, pairs), bool, marks pairs that share a text: neither is a
    negative of the other.
    """
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    scores = (first @ second.T / temperature).masked_fill(same & ~own, -torch.inf)
    target = torch.arange(len(first), device=first.device)
    forward = functional.cross_entropy(scores, target)
    return (forward + functional.cross_entropy(scores.T, target)) / 2


def anchor_loss(vectors: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the mean of 1 - cosine between unit vectors and what they were, a scalar."""
    return (1 - (vectors * start).sum(1)).mean()


def distribution_loss(
    teacher_scores: torch.Tensor, student_scores: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Return KL(teacher || student) of the softmax over documents, mean over questions, a scalar.

    Both have shape (questions, documents) and hold cosines; ``temperature`` divides them.
    """
    teacher = functional.log_softmax(teacher_scores / temperature, dim=1)
    student = functional.log_softmax(student_scores / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
