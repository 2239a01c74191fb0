"""The triplet loss of the warm-up and of the teacher."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["triplet_loss"]


def triplet_loss(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    *,
    margin: float,
    distance: Literal["cosine", "euclidean"] = "cosine",
) -> torch.Tensor:
    """Return the sum over the batch of max(0, d(a, p) - d(a, n) + margin), a scalar.

    ``anchor``, ``positive`` and ``negative`` hold unit vectors, shape (triplets, dimension). d is
    1 - cosine, or the squared Euclidean distance. The sum, not the mean, is the paper's choice
    (CL-ReLKT, section 3.1): a batch of twice the size takes a step of twice the gradient.
    """
    nearer = (anchor * (positive - negative)).sum(1)
    # d(a, p) - d(a, n) of unit vectors: the constants cancel.
    difference = -nearer if distance == "cosine" else -2 * nearer
    return torch.relu(difference + margin).sum()
