"""mUSE for a server: what a token decides by itself is computed once, not at every question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

from clrelkt.encoders.muse import LAYER_NORM_EPSILON, MuseEncoder
from clrelkt.encoders.muse_forward import BRANCH_WIDTH, BRANCHES, TokenLayout, pool_tokens
from clrelkt.encoders.protocol import TextKind
from clrelkt.errors import SettingsError

__all__ = ["Precision", "ServingMuse"]

Precision = Literal["float32", "bfloat16"]


class ServingMuse:
    """Encodes with a mUSE whose weights do not change any more; for use by one thread.

    The projection, its LayerNorm and the matrix products of the first convolutions see one token
    at a time. They are more than two fifths of the work for a batch of questions, and nearly all of
    it for a single one, whose few tokens meet the whole matrices. Here they are kept by token: 15
    KiB each. Vectors are those of the encoder but for the rounding of sums.

    With ``precision`` bfloat16 the second convolutions, most of what is left, multiply in it: four
    times as fast where the processor can, and no faster elsewhere.
    """

    def __init__(
        self,
        encoder: MuseEncoder,
        *,
        tokens: int = 16_384,
        precision: Precision = "float32",
    ) -> None:
        """Keep the products of up to ``tokens`` tokens; when one more comes, begin anew.

        Raises:
            SettingsError: there is no such precision, or the encoder is not on the CPU.
        """
        if encoder.device.type != "cpu":
            raise SettingsError(f"the encoder is on {encoder.device}; it must be on the CPU")
        if precision not in get_args(Precision):
            raise SettingsError(f"precision {precision!r}: float32 or bfloat16 expected")
        self.encoder = encoder
        self._kernels = tuple(
            kernel.detach().to(getattr(torch, precision))
            for kernel in encoder.network.second_kernels
        )
        self._capacity = tokens
        inner = len(BRANCHES) * BRANCH_WIDTH
        # The last row is that of a gap between texts.
        self._projected = torch.empty(tokens + 1, inner)
        self._windows = tuple(torch.empty(tokens + 1, size * BRANCH_WIDTH) for size, _ in BRANCHES)
        for store in (self._projected, *self._windows):
            store[tokens] = 0
        self._places = torch.full((encoder.embedding.shape[0],), -1)
        self._kept = 0

    def __len__(self) -> int:
        """How many tokens' products are kept."""
        return self._kept

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], kind: TextKind = "question") -> np.ndarray:
        """Return unit vectors, shape (texts, 512), float32.

        Texts with more distinct tokens than can be kept go to the encoder itself.
        """
        network = self.encoder.network
        batch = self.encoder.tokenize(texts, kind)
        layout = TokenLayout.of(batch)
        if layout.distinct.numel() > self._capacity:
            return self.encoder.encode(texts, kind)
        self._learn(layout.distinct)
        gap = self._places.new_tensor([self._capacity])
        rows = torch.cat([self._places[layout.distinct], gap])
        pooled = pool_tokens(
            layout,
            network.embedding[layout.distinct],
            self._projected[rows],
            tuple(store[rows].view(-1, BRANCH_WIDTH) for store in self._windows),
            network.convolution_bias_1,
            self._kernels,
            network.convolution_bias_2,
            LAYER_NORM_EPSILON,
        )
        vectors = network.vectors_of(pooled, batch.lengths)
        return vectors.numpy()

    def _learn(self, tokens: torch.Tensor) -> None:
        missing = tokens[self._places[tokens] < 0]
        if self._kept + missing.numel() > self._capacity:
            self._places.fill_(-1)
            self._kept = 0
            missing = tokens
        count = missing.numel()
        if not count:
            return
        projected, windows = self.encoder.network.token_products(
            self.encoder.network.embedding[missing]
        )
        place = slice(self._kept, self._kept + count)
        self._projected[place] = projected[:count]
        for store, products in zip(self._windows, windows, strict=True):
            store[place] = products.view(count + 1, -1)[:count]
        self._places[missing] = torch.arange(place.start, place.stop, device=missing.device)
        self._kept = place.stop
