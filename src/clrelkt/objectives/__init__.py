"""Losses over vectors."""

from __future__ import annotations

from clrelkt.objectives.transfer import TransferTerms, TransferWeights, transfer_loss
from clrelkt.objectives.triplet import triplet_loss

__all__ = ["TransferTerms", "TransferWeights", "transfer_loss", "triplet_loss"]
