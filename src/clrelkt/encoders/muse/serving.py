"""mUSE for a server: what a token decides by itself is computed once, not at every question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from clrelkt.encoders.muse.encoder import LAYER_NORM_EPSILON, MuseEncoder
from clrelkt.encoders.muse.forward import BRANCH_WIDTH, BRANCHES, GAP
from clrelkt.encoders.protocol import TextKind
from clrelkt.encoders.ragged import RaggedBatch, token_budget_slices
from clrelkt.errors import SettingsError

__all__ = ["Precision", "ServingMuse"]

Precision = Literal["float32", "bfloat16"]

_BLOCK_TOKENS = 1024
"""Tokens that are worked through at a time: what is computed of them stays in a core's cache."""


class ServingMuse:
    """Encodes with a mUSE whose weights do not change any more; for use by one thread.

    The projection, its LayerNorm and the matrix products of the first convolutions see one token
    at a time. They are more than two fifths of the work for a batch of questions, and nearly all of
    it for a single one, whose few tokens meet the whole matrices. Here they are kept by token: 15
    KiB each. Vectors are those of the encoder but for the rounding of sums.

    A second convolution is one product: where its windows overlap in memory, they need not be
    copied. With ``precision`` bfloat16 it multiplies in that: four times as fast where the
    processor can, and no faster elsewhere.
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
            kernel.detach().flatten(0, 1).to(getattr(torch, precision))
            for kernel in encoder.network.second_kernels
        )
        self._capacity = tokens
        # The last row is that of a gap between texts.
        self._projected = tuple(torch.empty(tokens + 1, BRANCH_WIDTH) for _ in BRANCHES)
        self._windows = tuple(torch.empty(tokens + 1, size * BRANCH_WIDTH) for size, _ in BRANCHES)
        self._embedded_sum = torch.empty(tokens + 1)
        self._embedded_squares = torch.empty(tokens + 1)
        for store in self._stores:
            store[tokens] = 0
        self._places = torch.full((encoder.embedding.shape[0],), -1)
        self._kept = 0

    @property
    def _stores(self) -> tuple[torch.Tensor, ...]:
        return (*self._projected, *self._windows, self._embedded_sum, self._embedded_squares)

    def __len__(self) -> int:
        """How many tokens' products are kept."""
        return self._kept

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], kind: TextKind = "question") -> np.ndarray:
        """Return unit vectors, shape (texts, 512), float32.

        Texts with more distinct tokens than can be kept go to the encoder itself.
        """
        batch = self.encoder.tokenize(texts, kind)
        if not len(batch) or not self._learn(batch.token_ids):
            return self.encoder.encode(texts, kind)
        runs = token_budget_slices(batch.lengths.tolist(), _BLOCK_TOKENS)
        pooled = torch.cat([self._pool(part) for part in batch.cut(runs)])
        return self.encoder.network.vectors_of(pooled, batch.lengths).numpy()

    def _learn(self, tokens: torch.Tensor) -> bool:
        """Keep the products of ``tokens`` (tokens,); tell whether there is room for them all."""
        missing = torch.unique(tokens[self._places[tokens] < 0])
        if self._kept + missing.numel() > self._capacity:
            self._places.fill_(-1)
            self._kept = 0
            missing = torch.unique(tokens)
        count = missing.numel()
        if count > self._capacity:
            return False
        if count:
            self._keep(missing, slice(self._kept, self._kept + count))
        return True

    def _keep(self, tokens: torch.Tensor, place: slice) -> None:
        embedded = self.encoder.network.embedding[tokens]
        projected, windows = self.encoder.network.token_products(embedded)
        count = tokens.numel()
        found = (
            *torch.split(projected, BRANCH_WIDTH, 1),
            *(products.view(count + 1, -1) for products in windows),
            embedded.sum(1),
            torch.linalg.vecdot(embedded, embedded),
        )
        for store, values in zip(self._stores, found, strict=True):
            store[place] = values[:count]
        self._places[tokens] = torch.arange(place.start, place.stop)
        self._kept = place.stop

    def _pool(self, batch: RaggedBatch) -> torch.Tensor:
        """Return the sum of each text's normalised tokens, shape (texts, 1280).

        What ``forward.pool_tokens`` computes, of tokens that are known.
        """
        network = self.encoder.network
        text_of_token = batch.text_of_token
        # Rows are counted from the first token; ``slots`` has two gaps more on either side.
        rows = torch.arange(batch.tokens) + text_of_token * GAP
        size = batch.tokens + len(batch) * GAP
        slots = torch.full((size + 4 * GAP,), self._capacity)
        slots[rows + 2 * GAP] = self._places[batch.token_ids]
        gaps = torch.nonzero(slots[GAP:-GAP] == self._capacity).squeeze(1)
        output = torch.empty(size, len(BRANCHES) * BRANCH_WIDTH)
        for index in range(len(BRANCHES)):
            self._branch(index, slots, gaps, output)
        own = slots[2 * GAP : -2 * GAP]
        width = network.embedding.shape[1] + output.shape[1]
        mean = (output.sum(1) + self._embedded_sum[own]) / width
        squares = torch.linalg.vecdot(output, output) + self._embedded_squares[own]
        scale = torch.rsqrt((squares / width - mean * mean).clamp_min_(0.0) + LAYER_NORM_EPSILON)
        weights = scale[rows]
        offsets = batch.lengths.cumsum(0) - batch.lengths

        def weighted_sum(chosen: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
            return functional.embedding_bag(
                chosen, table, offsets, mode="sum", per_sample_weights=weights
            )

        pooled = torch.cat(
            (weighted_sum(batch.token_ids, network.embedding), weighted_sum(rows, output)), 1
        )
        return pooled.sub_(weighted_sum(rows, mean.unsqueeze(1)))

    def _branch(
        self, index: int, slots: torch.Tensor, gaps: torch.Tensor, output: torch.Tensor
    ) -> None:
        """Write a branch's two convolutions into its columns of ``output`` (rows, 768)."""
        network = self.encoder.network
        size, left = BRANCHES[index]
        columns = slice(index * BRANCH_WIDTH, (index + 1) * BRANCH_WIDTH)
        windows = slots.unfold(0, size, 1)[GAP - left : len(slots) - GAP - left]
        hidden = functional.embedding_bag(
            windows * size + torch.arange(size),
            self._windows[index].view(-1, BRANCH_WIDTH),
            mode="sum",
        )
        hidden.add_(network.convolution_bias_1[columns]).relu_()
        hidden.add_(functional.embedding(slots[GAP:-GAP], self._projected[index]))
        hidden.index_fill_(0, gaps, 0.0)
        factors = hidden.to(self._kernels[index].dtype).as_strided(
            (len(output), size * BRANCH_WIDTH), (BRANCH_WIDTH, 1), (GAP - left) * BRANCH_WIDTH
        )
        own = output[:, columns]
        torch.add(factors @ self._kernels[index], network.convolution_bias_2[columns], out=own)
        own.relu_().add_(hidden[GAP:-GAP])
