"""mUSE: Google's universal-sentence-encoder-multilingual version 3, in PyTorch and trainable."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from clrelkt.encoders.identity import EncoderIdentity, Identified
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.muse.forward import (
    BRANCH_WIDTH,
    BRANCHES,
    CPU_BLOCK_TOKENS,
    TokenLayout,
    pool_tokens,
)
from clrelkt.encoders.muse.fused import FusedLayout, RowWeights, fused_type, pool_rows
from clrelkt.encoders.muse.weights import MuseWeights
from clrelkt.encoders.pieces import PieceTokenizer
from clrelkt.encoders.products import linear
from clrelkt.encoders.protocol import SaveForm, TextKind
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.streaming import Arrivals, tokenized_ahead
from clrelkt.encoders.tokenizer import SentencePieceTokenizer
from clrelkt.errors import EncoderError
from clrelkt.progress import progress_bar

__all__ = ["LAYER_NORM_EPSILON", "MUSE_LANGUAGES", "MuseEncoder", "MuseNetwork"]

MUSE_LANGUAGES = frozenset(
    ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh")
)
"""Languages that mUSE was trained on."""

LAYER_NORM_EPSILON = 1e-12
_CPU_BATCH_TOKENS = 32_768
_GPU_BATCH_TOKENS = 524_288
_BLOCK_CHARACTERS = 1_000_000
_GPU_BLOCK_CHARACTERS = 4_000_000
"""More, as every block costs the host some time."""


class MuseNetwork(nn.Module):
    """The network: token ids to unit vectors of 512 numbers.

    Embedding, three branches of two convolutions each (windows of 2, 3 and 5 tokens), LayerNorm
    and a linear layer a token, a sum over the tokens divided by the square root of their number,
    and four residual layers. ``block_tokens`` is how many tokens a CPU works through at a time; a
    GPU works through all at once, in kernels of its own (``fused``) where it can.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], *, block_tokens: int = CPU_BLOCK_TOKENS
    ) -> None:
        """Take over a copy of the tensors.

        Raises:
            EncoderError: a tensor is missing, unknown, or of a shape that does not fit.
        """
        super().__init__()
        _check_tensors(tensors)
        self.block_tokens = block_tokens
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().clone()))
        self.embedding: nn.Parameter
        self.projection: nn.Parameter
        self.projection_bias: nn.Parameter
        self.branch_gain: nn.Parameter
        self.branch_bias: nn.Parameter
        self.convolution_bias_1: nn.Parameter
        self.convolution_bias_2: nn.Parameter
        self.token_gain: nn.Parameter
        self.token_bias: nn.Parameter
        self.token_linear: nn.Parameter
        self.token_linear_bias: nn.Parameter
        self.hidden_0: nn.Parameter
        self.hidden_1: nn.Parameter
        self.hidden_2: nn.Parameter
        self.hidden_3: nn.Parameter
        self.shortcut_1: nn.Parameter
        self.shortcut_3: nn.Parameter

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.hidden_3.shape[1])

    def forward(self, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, 512)."""
        return self.vectors_of(self._pool(batch), batch.lengths)

    def vectors_of(self, pooled: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return unit vectors, shape (texts, 512), of texts' sums of tokens, shape (texts, 1280).

        ``lengths`` (texts,) counts their tokens.
        """
        count = lengths.to(pooled.dtype).unsqueeze(1)
        summed = pooled * self.token_gain + count * self.token_bias
        text = (summed @ self.token_linear + count * self.token_linear_bias) / count.sqrt()
        return self._residual_layers(text)

    def _pool(self, batch: RaggedBatch) -> torch.Tensor:
        """Return the sum of each text's normalised tokens, shape (texts, 1280)."""
        dtype = fused_type(self.embedding) if batch.tokens else None
        if dtype is not None:
            return self._pool_fused(batch, dtype)
        layout = TokenLayout.of(batch, self.block_tokens)
        embedded = functional.embedding(layout.distinct, self.embedding)
        projected, windows = self.token_products(embedded)
        return pool_tokens(
            layout,
            embedded,
            projected,
            windows,
            self.convolution_bias_1,
            self.second_kernels,
            self.convolution_bias_2,
            LAYER_NORM_EPSILON,
        )

    def _pool_fused(self, batch: RaggedBatch, dtype: torch.dtype) -> torch.Tensor:
        layout = FusedLayout.of(batch, self.embedding.shape[0])
        embedded: torch.Tensor = self.embedding
        if layout.distinct is not None:
            embedded = functional.embedding(layout.distinct, self.embedding)
        weights = RowWeights(
            self.projection,
            self.projection_bias,
            self.branch_gain,
            self.branch_bias,
            self.convolution_bias_1,
            self.convolution_bias_2,
            tuple(self._kernel(1, size) for size, _ in BRANCHES),
            self.second_kernels,
        )
        return pool_rows(layout, dtype, embedded, weights, LAYER_NORM_EPSILON)

    def token_products(
        self, embedded: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return what distinct tokens decide each by itself, the gap between texts behind them.

        From embeddings of shape (distinct, 512): their projections, shape (distinct + 1, 768), and
        for each branch of window n the products with the first convolution's kernel, shape
        ((distinct + 1) * n, 256).
        """
        projected = self._project(embedded)
        return projected, tuple(self._windows(projected, index) for index in range(len(BRANCHES)))

    @property
    def second_kernels(self) -> tuple[torch.Tensor, ...]:
        """The second convolutions' kernels, shape (n, 256, 256) for a branch of window n."""
        return tuple(self._kernel(2, size) for size, _ in BRANCHES)

    def _kernel(self, layer: int, size: int) -> torch.Tensor:
        return self.get_parameter(f"convolution_{layer}_window_{size}")

    def _project(self, embedded: torch.Tensor) -> torch.Tensor:
        branches = linear(embedded, self.projection.T, self.projection_bias)
        apart = branches.view(-1, len(BRANCHES), BRANCH_WIDTH)
        normal = functional.layer_norm(apart, (BRANCH_WIDTH,), eps=LAYER_NORM_EPSILON)
        return functional.pad(normal.flatten(1) * self.branch_gain + self.branch_bias, (0, 0, 0, 1))

    def _windows(self, projected: torch.Tensor, index: int) -> torch.Tensor:
        kernel = self._kernel(1, BRANCHES[index][0])
        side_by_side = kernel.permute(1, 0, 2).flatten(1)
        branch = projected[:, index * BRANCH_WIDTH : (index + 1) * BRANCH_WIDTH]
        product = linear(branch, side_by_side.T).view(-1, BRANCH_WIDTH)
        # Under autocast a CPU would look up rows in bfloat16 many times more slowly.
        return product.to(projected.dtype) if product.device.type == "cpu" else product

    def _residual_layers(self, text: torch.Tensor) -> torch.Tensor:
        first = torch.relu(text @ self.hidden_0)
        second = torch.relu(text @ self.shortcut_1 + first @ self.hidden_1)
        third = torch.relu(second @ self.hidden_2)
        fourth = torch.tanh(second @ self.shortcut_3 + third @ self.hidden_3)
        return functional.normalize(fourth, dim=1)


class MuseEncoder(Identified, nn.Module):
    """mUSE with its tokenizer: text to unit vectors of 512 numbers (TrainableEncoder)."""

    def __init__(
        self, network: MuseNetwork, tokenizer: SentencePieceTokenizer, identity: EncoderIdentity
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.identity = identity

    @classmethod
    def from_weights(cls, weights: MuseWeights, name: str) -> Self:
        """Build the encoder from published weights."""
        return cls(
            MuseNetwork(weights.tensors),
            SentencePieceTokenizer(weights.sentencepiece),
            EncoderIdentity(name, name, weights.label, MUSE_LANGUAGES),
        )

    @property
    def dimension(self) -> int:
        """Length of a vector: 512."""
        return self.network.dimension

    @property
    def save_forms(self) -> tuple[SaveForm, ...]:
        """How it can be saved, the smallest exact form first."""
        from clrelkt.encoders.published import PUBLISHED

        whole: tuple[SaveForm, ...] = ("whole", "whole-float16")
        if self.identity.base not in PUBLISHED:
            return whole
        return ("delta", "delta-float16", "delta-int8", "delta-int6", "delta-int4", *whole)

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.network.embedding.device

    def tokenize(
        self, texts: Sequence[str], kind: TextKind = "passage", *, threads: int | None = None
    ) -> RaggedBatch:
        """Turn texts into token ids; mUSE treats questions and passages alike.

        ``threads`` work on them; None: as many as there are cores.
        """
        return RaggedBatch.from_arrays(self.tokenizer.arrays(texts, threads=threads))

    def forward(self, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, 512), with gradients."""
        vectors: torch.Tensor = self.network(batch)
        return vectors

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, 512), float32, without gradients.

        Texts are tokenised block by block while the network works on the block before.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        on_cpu = self.device.type == "cpu"
        budget = TokenBudget(_CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS)
        gpu = self.device.type == "cuda"
        characters = _GPU_BLOCK_CHARACTERS if gpu else _BLOCK_CHARACTERS
        bar = progress_bar("encoding", total=len(texts), unit="texts", shown=progress)
        with bar as advance, Arrivals(vectors) as arrivals:
            for start, batch in tokenized_ahead(self.tokenize, texts, characters, rising=gpu):
                for run, found in budget.encode(batch, self._encode_part):
                    arrivals.expect(slice(start + run.start, start + run.stop), found)
                advance(len(batch))
        return vectors

    def _encode_part(self, part: RaggedBatch) -> torch.Tensor:
        vectors: torch.Tensor = self.network(part.to(self.device))
        return vectors

    def compact(self, token_ids: torch.Tensor) -> Self:
        """Return a copy whose embedding table holds only the rows that ``token_ids`` name.

        Raises:
            EncoderError: this encoder is such a copy itself.
        """
        if self.tokenizer.rows is not None:
            raise EncoderError("the vocabulary is compact already: compact the encoder it is from")
        rows = torch.unique(token_ids)
        tensors = {name: tensor.detach() for name, tensor in self.network.named_parameters()}
        tensors["embedding"] = tensors["embedding"][rows.to(self.device)]
        return type(self)(
            self._network_of(tensors), self.tokenizer.restricted_to(rows), self.identity
        )

    def write_back(self, compacted: Self) -> Self:
        """Return this encoder with every parameter of ``compacted`` written into its place.

        Raises:
            EncoderError: ``compacted`` was not made by this encoder's ``compact``.
        """
        rows = compacted.tokenizer.rows
        if rows is None:
            raise EncoderError("the encoder to write back holds the whole vocabulary already")
        if self.tokenizer.rows is not None or compacted.tokenizer.model != self.tokenizer.model:
            raise EncoderError("the encoder to write back was not made from this one")
        tensors = {
            name: tensor.detach().to(self.device)
            for name, tensor in compacted.network.named_parameters()
        }
        table = self.network.embedding.detach().clone()
        table[rows.to(self.device)] = tensors["embedding"]
        tensors["embedding"] = table
        return type(self)(self._network_of(tensors), self.tokenizer, self.identity)

    def _network_of(self, tensors: Mapping[str, torch.Tensor]) -> MuseNetwork:
        return MuseNetwork(tensors, block_tokens=self.network.block_tokens)

    @property
    def embedding(self) -> nn.Parameter:
        """The embedding table, shape (rows, embedding)."""
        return self.network.embedding

    def vectors_with(self, table: torch.Tensor, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, 512), with ``table`` in its table's place."""
        vectors: torch.Tensor = functional_call(self.network, {"embedding": table}, (batch,))
        return vectors

    def with_table(
        self, table: torch.Tensor, tokenizer: PieceTokenizer, languages: Iterable[str]
    ) -> Self:
        """Return this encoder with another embedding table, and the tokenizer that goes with it.

        ``languages`` are added to those that it knows.

        Raises:
            EncoderError: the table, shape (rows, embedding), has fewer rows than there are pieces.
        """
        assert isinstance(tokenizer, SentencePieceTokenizer)
        if table.shape[0] < tokenizer.pieces:
            raise EncoderError(
                f"{tokenizer.pieces} pieces, but only {table.shape[0]} rows of embeddings"
            )
        tensors = {name: tensor.detach() for name, tensor in self.network.named_parameters()}
        identity = dataclasses.replace(
            self.identity, languages=self.identity.languages | frozenset(languages)
        )
        return type(self)(self._network_of(tensors | {"embedding": table}), tokenizer, identity)

    def renamed(self, name: str) -> Self:
        """Return the same encoder under another name (parameters are shared)."""
        identity = dataclasses.replace(self.identity, name=name)
        return type(self)(self.network, self.tokenizer, identity)

    def save(
        self,
        folder: Path,
        *,
        form: SaveForm = "whole",
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """Write it to ``folder``, whole or as the difference from its base, and records with it."""
        from clrelkt.encoders.storage import save_muse

        save_muse(self, folder, form, records=records)


def _tensor_shapes() -> dict[str, tuple[int | str, ...]]:
    """Return each parameter's shape; a word stands for a size that the tensors settle."""
    inner = len(BRANCHES) * BRANCH_WIDTH
    shapes: dict[str, tuple[int | str, ...]] = {
        "embedding": ("rows", "embedding"),
        "projection": ("embedding", inner),
        "token_gain": ("token",),
        "token_bias": ("token",),
        "token_linear": ("token", "text"),
        "token_linear_bias": ("text",),
        "hidden_0": ("text", "first"),
        "shortcut_1": ("text", "second"),
        "hidden_1": ("first", "second"),
        "hidden_2": ("second", "third"),
        "shortcut_3": ("second", "vector"),
        "hidden_3": ("third", "vector"),
    }
    for name in ("projection_bias", "branch_gain", "branch_bias"):
        shapes[name] = (inner,)
    for layer in (1, 2):
        shapes[f"convolution_bias_{layer}"] = (inner,)
        for size, _ in BRANCHES:
            shapes[f"convolution_{layer}_window_{size}"] = (size, BRANCH_WIDTH, BRANCH_WIDTH)
    return shapes


def _check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    shapes = _tensor_shapes()
    for problem, names in (
        ("missing", shapes.keys() - tensors.keys()),
        ("unknown", tensors.keys() - shapes.keys()),
    ):
        if names:
            raise EncoderError(f"not mUSE's tensors: {', '.join(sorted(names))} {problem}")
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        got = tuple(tensors[name].shape)
        expected = shape
        if len(got) == len(shape):
            expected = tuple(
                sizes.setdefault(size, found) if isinstance(size, str) else size
                for size, found in zip(shape, got, strict=True)
            )
        if got != expected:
            raise EncoderError(f"not mUSE's tensors: {name} has shape {got}, expected {expected}")
        if name == "embedding":
            sizes["token"] = sizes["embedding"] + len(BRANCHES) * BRANCH_WIDTH
    dtypes = {str(tensor.dtype) for tensor in tensors.values()}
    if len(dtypes) > 1:
        raise EncoderError(f"not mUSE's tensors: of several kinds ({', '.join(sorted(dtypes))})")
