"""An encoder whose work is shared out over the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clrelkt.encoders import Encoder, TextKind
from clrelkt.training.process_group import ProcessGroup, balanced_shares

__all__ = ["SharedEncoder"]


class SharedEncoder:
    """An encoder (Encoder) of which every process of ``group`` makes a share of the vectors.

    All processes must ask for the same texts at the same time, and all get all vectors.
    """

    def __init__(self, encoder: Encoder, group: ProcessGroup) -> None:
        self._encoder = encoder
        self._group = group
        self.name = encoder.name
        self.weights = encoder.weights
        self.dimension = encoder.dimension
        self.languages = encoder.languages

    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32, without gradients."""
        shares = balanced_shares([len(text) for text in texts], self._group.size)
        own = self._encoder.encode(
            [texts[place] for place in shares[self._group.rank]],
            kind,
            progress=progress and self._group.first,
        )
        gathered = self._group.gather(
            torch.from_numpy(own).to(self._group.device), [len(share) for share in shares]
        )
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        vectors[np.concatenate(shares)] = gathered.cpu().numpy()
        return vectors
