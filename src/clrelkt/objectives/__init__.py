"""Losses over vectors."""

from __future__ import annotations

from clrelkt.objectives.alignment import alignment_loss
from clrelkt.objectives.contrastive import (
    anchor_loss,
    distribution_loss,
    paired_loss,
    ranking_loss,
    reverse_ranking_loss,
)
from clrelkt.objectives.transfer import TransferTerms, TransferWeights, transfer_loss
from clrelkt.objectives.triplet import triplet_loss

__all__ = [
    "TransferTerms",
    "TransferWeights",
    "alignment_loss",
    "anchor_loss",
    "distribution_loss",
    "paired_loss",
    "ranking_loss",
    "reverse_ranking_loss",
    "transfer_loss",
    "triplet_loss",
]
