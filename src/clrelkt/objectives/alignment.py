"""The loss that puts translations where the vectors of their English texts are, which stay put."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["alignment_loss"]


def alignment_loss(
    vectors: torch.Tensor,
    targets: torch.Tensor,
    texts: torch.Tensor,
    weights: torch.Tensor,
    *,
    temperature: float,
    closeness: float,
) -> torch.Tensor:
    """Return the weighted mean of a softmax over the batch and ``closeness`` times 1 - cosine.

    ``vectors`` and ``targets`` (pairs, dimension) are unit vectors that belong together row by row,
    ``weights`` (pairs,) what each row counts. ``texts`` (pairs,) numbers the texts that targets are
    of: rows of one text are no negatives of each other. ``temperature`` divides the cosines of the
    softmax. Both terms together are distillation from parallel data as Reimers and Gurevych have it
    (2020, https://arxiv.org/abs/2004.09813), with negatives.
    """
    cosines = vectors @ targets.T
    same = texts.unsqueeze(1) == texts
    same.fill_diagonal_(False)
    softmax = functional.cross_entropy(
        (cosines / temperature).masked_fill(same, -torch.inf),
        torch.arange(len(vectors), device=vectors.device),
        reduction="none",
    )
    return (weights * (softmax + closeness * (1 - cosines.diagonal()))).sum() / weights.sum()
