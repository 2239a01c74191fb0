"""Transformer encoders: any model of Hugging Face with its pooling, as a trainable encoder."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from clrelkt.encoders.identity import EncoderIdentity, Identified
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.pieces import PieceTokenizer
from clrelkt.encoders.protocol import SaveForm, TextKind
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.runs import vectors_in_runs
from clrelkt.encoders.streaming import Arrivals, tokenized_ahead
from clrelkt.encoders.transformer.cpu_layers import CpuLayers
from clrelkt.encoders.transformer.fused_layers import FusedLayers
from clrelkt.encoders.transformer.grouped_attention import GroupedAttention
from clrelkt.encoders.transformer.layout import TextLayout, VarlenAttention
from clrelkt.encoders.transformer.networks import (
    BIASED,
    bert_embeddings,
    cpu_layers,
    fused_layers,
    layer_weights,
    ragged_pass,
)
from clrelkt.encoders.transformer.pooling import PoolingMode, pool_states
from clrelkt.encoders.transformer.tokenizer import Marks, TransformerTokenizer
from clrelkt.encoders.transformer.working_copies import WorkingCopies
from clrelkt.errors import EncoderError
from clrelkt.progress import progress_bar

__all__ = ["Prompts", "TransformerEncoder", "TransformerNetwork", "Unit", "cut_passages"]

_CPU_BATCH_TOKENS = 8_192
_GPU_BATCH_TOKENS = 131_072
_BLOCK_CHARACTERS = 1_750_000
_HALVES = (torch.float16, torch.bfloat16)
_UNUSED = ("pooler",)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands before every question and before every passage."""

    question: str = ""
    passage: str = ""

    def of(self, kind: TextKind) -> str:
        """Return the prompt of texts of a kind."""
        return self.question if kind == "question" else self.passage


class Unit(nn.Module):
    """Makes unit vectors, where a further layer takes them."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return unit vectors, shape (texts, width)."""
        return functional.normalize(vectors, dim=1)


class TransformerNetwork(nn.Module):
    """The network: token ids to unit vectors.

    ``model`` is a model of Hugging Face; families that ``ragged_pass`` knows run without padding,
    others padded. ``projections`` are linear layers with their activations behind the pooling.
    ``unused`` holds tensors of the model that no vector depends on, kept for saving. Vectors do not
    depend on the batch, and there is no dropout.
    """

    def __init__(
        self,
        model: Any,
        pooling: Sequence[PoolingMode],
        projections: Iterable[nn.Module] = (),
        unused: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.pooling = tuple(pooling)
        self.projections = nn.ModuleList(projections)
        self.unused = dict(unused or {})
        self.compute_dtype = torch.float32
        for name in _UNUSED:
            part = getattr(model, name, None)
            if isinstance(part, nn.Module):
                self.unused |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
                setattr(model, name, None)
        self._ragged = ragged_pass(model.config)
        self._groups = [] if self._ragged is None else layer_weights(model)
        self._fused = fused_layers(model)
        self._on_cpu = cpu_layers(model)

    @property
    def embedding(self) -> nn.Parameter:
        """The embedding table, shape (rows, embedding)."""
        table: nn.Parameter = self.model.get_input_embeddings().weight
        return table

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        for projection in reversed(self.projections):
            if isinstance(projection, nn.Sequential):
                return int(projection[0].out_features)  # type: ignore[arg-type]
        return int(self.model.config.hidden_size) * len(self.pooling)

    @property
    def unpadded(self) -> bool:
        """Whether the network runs without padding."""
        return self._ragged is not None

    def forward(
        self, batch: RaggedBatch, host_lengths: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension), float32.

        Quickest where the texts stand in the order of their lengths (``needs_no_order``), and where
        the lengths are known on the host.
        """
        device = batch.token_ids.device
        dtype = self._dtype(device)
        layout = TextLayout(batch.lengths, host_lengths or tuple(batch.host_lengths.tolist()))
        if self._ragged is None:
            states = self._padded(batch, layout, dtype)
        elif (layers := self._whole_layers(layout, dtype)) is not None:
            with torch.autocast(device.type, enabled=False):
                look_up = layers.look_up if isinstance(layers, CpuLayers) else functional.embedding
                embedded = bert_embeddings(self.model, batch.token_ids, layout, look_up)
                states = layers(embedded.to(dtype), layout)
        else:
            unpadded = self.needs_no_order(device)
            attention = VarlenAttention(layout) if unpadded else GroupedAttention(layout)
            with torch.autocast(device.type, enabled=False):
                weights = WorkingCopies(self._groups, dtype, device)
                states = self._ragged(self.model, batch.token_ids, layout, attention, weights)
        with torch.autocast(device.type, enabled=False):
            pooled = pool_states(states, layout, self.pooling)
            for projection in self.projections:
                pooled = projection(pooled)
            return functional.normalize(pooled, dim=1)

    def with_model(self, model: Any) -> TransformerNetwork:
        """Return the network around another model."""
        network = TransformerNetwork(
            model, self.pooling, copy.deepcopy(self.projections), self.unused
        )
        network.compute_dtype = self.compute_dtype
        return network

    def with_table(self, table: torch.Tensor) -> TransformerNetwork:
        """Return a copy with another embedding table, shape (rows, embedding)."""
        old = self.embedding
        # The old table is not copied: it is most of the parameters.
        model = copy.deepcopy(self.model, {id(old): nn.Parameter(table.detach().clone())})
        embedding = model.get_input_embeddings()
        embedding.num_embeddings = model.config.vocab_size = table.shape[0]
        embedding.padding_idx = None
        return self.with_model(model)

    def needs_no_order(self, device: torch.device) -> bool:
        """Whether attention on ``device`` pads nothing, whatever stands beside each other."""
        if self._ragged is None or device.type != "cuda" or self._dtype(device) not in _HALVES:
            return False
        config = self.model.config
        width = config.hidden_size // config.num_attention_heads
        # What PyTorch's kernel can do.
        fits = width % 8 == 0 and width <= 256
        return fits and config.model_type not in BIASED and _is_ampere(device)

    def _whole_layers(
        self, layout: TextLayout, dtype: torch.dtype
    ) -> FusedLayers | CpuLayers | None:
        """Return what computes all layers as functions of its own; None where nothing does."""
        device = layout.lengths.device
        if self._fused is not None and self.needs_no_order(device) and self._fused.can_run(layout):
            return self._fused
        if self._on_cpu is not None and self._on_cpu.can_run(device, dtype):
            return self._on_cpu
        return None

    def _dtype(self, device: torch.device) -> torch.dtype:
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.compute_dtype

    def _padded(self, batch: RaggedBatch, layout: TextLayout, dtype: torch.dtype) -> torch.Tensor:
        """Return hidden states (tokens, width) from the model's own, padded, forward pass."""
        device = batch.token_ids.device
        places = torch.arange(layout.longest, device=device)
        mask = places < batch.lengths.unsqueeze(1)
        rows = torch.where(mask, layout.starts.unsqueeze(1) + places, 0)
        embedded = self.model.get_input_embeddings()(batch.token_ids[rows])
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = self.model(inputs_embeds=embedded, attention_mask=mask.long())
        states: torch.Tensor = found.last_hidden_state[mask]
        return states


class TransformerEncoder(Identified, nn.Module):
    """A transformer with its tokenizer, pooling and prompts: text to unit vectors.

    It is a TrainableEncoder. A text longer than the model can read is read as several passages;
    its vector is the mean of theirs, weighted by their tokens, made a unit vector again.
    """

    def __init__(
        self,
        network: TransformerNetwork,
        tokenizer: TransformerTokenizer,
        identity: EncoderIdentity,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.identity = identity
        self.prompts = prompts or Prompts()
        self._budgets: dict[str, TokenBudget] = {}

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.network.dimension

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.network.embedding.device

    @property
    def save_forms(self) -> tuple[SaveForm, ...]:
        """How it can be saved: whole alone."""
        return ("whole",)

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the network computes in; parameters stay float32. An autocast block overrides it."""
        return self.network.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.network.compute_dtype = dtype

    def tokenize(self, texts: Sequence[str], kind: TextKind = "passage") -> RaggedBatch:
        """Turn texts into token ids, with the kind's prompt before each."""
        return self.tokenizer.batch(texts, self.prompts.of(kind))

    def forward(self, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension), with gradients.

        Without gradients the batch is worked through in parts that fit the device.
        """
        if not len(batch):
            return torch.empty(0, self.dimension, device=self.device)
        return self._any_length(batch)

    @torch.inference_mode()
    def encode(
        self, texts: Sequence[str], kind: TextKind = "passage", *, progress: bool = False
    ) -> np.ndarray:
        """Return unit vectors, shape (texts, dimension), float32, without gradients.

        The next texts are tokenised while the network works on those before.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)

        def tokenized(block: Sequence[str], *, threads: int | None = None) -> RaggedBatch:
            # Words that are known need one thread, others take all that there are.
            return self.tokenize(block, kind)

        bar = progress_bar("encoding", total=len(texts), unit="texts", shown=progress)
        with bar as advance, Arrivals(vectors) as arrivals:
            gpu = self.device.type != "cpu"
            for start, batch in tokenized_ahead(tokenized, texts, _BLOCK_CHARACTERS, rising=gpu):
                arrivals.expect(slice(start, start + len(batch)), self._any_length(batch))
                advance(len(batch))
        return vectors

    def compact(self, token_ids: torch.Tensor) -> Self:
        """Return a copy whose embedding table holds only the rows that ``token_ids`` name.

        Raises:
            EncoderError: this encoder is such a copy itself.
        """
        if self.tokenizer.rows is not None:
            raise EncoderError("the vocabulary is compact already: compact the encoder it is from")
        rows = torch.unique(token_ids)
        table = self.network.embedding.detach()[rows.to(self.device)]
        return self._with(self.network.with_table(table), self.tokenizer.restricted_to(rows))

    def write_back(self, compacted: Self) -> Self:
        """Return this encoder with every parameter of ``compacted`` written into its place.

        Raises:
            EncoderError: ``compacted`` was not made by this encoder's ``compact``.
        """
        rows = compacted.tokenizer.rows
        if rows is None:
            raise EncoderError("the encoder to write back holds the whole vocabulary already")
        if self.tokenizer.rows is not None or not compacted.tokenizer.shares_source(self.tokenizer):
            raise EncoderError("the encoder to write back was not made from this one")
        table = self.network.embedding.detach().clone()
        table[rows.to(self.device)] = compacted.network.embedding.detach().to(self.device)
        return self._with(compacted.network.with_table(table).to(self.device), self.tokenizer)

    def with_table(
        self, table: torch.Tensor, tokenizer: PieceTokenizer, languages: Iterable[str]
    ) -> Self:
        """Return this encoder with another embedding table, and the tokenizer that goes with it.

        ``languages`` are added to those that it knows.

        Raises:
            EncoderError: the table, shape (rows, embedding), has fewer rows than there are pieces.
        """
        assert isinstance(tokenizer, TransformerTokenizer)
        if table.shape[0] < tokenizer.pieces:
            raise EncoderError(
                f"{tokenizer.pieces} pieces, but only {table.shape[0]} rows of embeddings"
            )
        identity = dataclasses.replace(
            self.identity, languages=self.identity.languages | frozenset(languages)
        )
        return type(self)(self.network.with_table(table), tokenizer, identity, self.prompts)

    @property
    def embedding(self) -> nn.Parameter:
        """The embedding table, shape (rows, embedding)."""
        return self.network.embedding

    def vectors_with(self, table: torch.Tensor, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors, shape (texts, dimension), with ``table`` in its table's place."""
        old = self.embedding
        (name,) = (name for name, parameter in self.named_parameters() if parameter is old)
        vectors: torch.Tensor = functional_call(self, {name: table}, (batch,))
        return vectors

    def renamed(self, name: str) -> Self:
        """Return the same encoder under another name (parameters are shared)."""
        identity = dataclasses.replace(self.identity, name=name)
        return type(self)(self.network, self.tokenizer, identity, self.prompts)

    def save(
        self,
        folder: Path,
        *,
        form: SaveForm = "whole",
        records: Mapping[str, Any] | None = None,
    ) -> None:
        """Write it to ``folder`` in a form that ``SentenceTransformer(folder)`` opens, too."""
        from clrelkt.encoders.transformer.storage import save_transformer

        save_transformer(self, folder, form, records=records)

    def _with(self, network: TransformerNetwork, tokenizer: TransformerTokenizer) -> Self:
        return type(self)(network, tokenizer, self.identity, self.prompts)

    def _any_length(self, batch: RaggedBatch) -> torch.Tensor:
        """Return unit vectors of texts of any length, on the encoder's device."""
        lengths = batch.host_lengths.numpy()
        limit = self.tokenizer.max_length
        if lengths.max() <= limit:
            return self._vectors(batch, lengths)
        passages, counts = cut_passages(batch, lengths, self.tokenizer.marks, limit)
        vectors = self._vectors(passages, passages.host_lengths.numpy())
        weighted = vectors * passages.lengths.to(vectors.device).unsqueeze(1)
        summed = torch.segment_reduce(
            weighted, "sum", lengths=counts.to(vectors.device), axis=0, unsafe=True
        )
        return functional.normalize(summed, dim=1)

    def _vectors(self, batch: RaggedBatch, lengths: np.ndarray) -> torch.Tensor:
        """Return unit vectors of texts that are not too long, on the encoder's device."""
        if not torch.is_grad_enabled():
            return vectors_in_runs(self.network, batch, lengths, self.device, self._budget())
        batch = batch.to(self.device)
        if self.network.needs_no_order(self.device):
            found: torch.Tensor = self.network(batch, tuple(lengths.tolist()))
            return found
        order = np.argsort(-lengths, kind="stable")
        places = torch.from_numpy(order).to(self.device)
        vectors = self.network(batch.select(places), tuple(lengths[order].tolist()))
        return torch.empty_like(vectors).index_copy(0, places, vectors)

    def _budget(self) -> TokenBudget:
        kind = self.device.type
        if kind not in self._budgets:
            tokens = _CPU_BATCH_TOKENS if kind == "cpu" else _GPU_BATCH_TOKENS
            self._budgets[kind] = TokenBudget(tokens, _warn, advice="The vectors are the same")
        return self._budgets[kind]


def cut_passages(
    batch: RaggedBatch, lengths: np.ndarray, marks: Marks, limit: int
) -> tuple[RaggedBatch, torch.Tensor]:
    """Return the passages of all texts, and how many each text has, shape (texts,).

    What is longer than the limit even so is cut after ``limit`` tokens.
    """
    ids = batch.token_ids.cpu().numpy()
    parts: list[int] = []
    counts: list[int] = []
    start = 0
    for length in lengths.tolist():
        if length <= limit:
            parts.append(length)
            counts.append(1)
        else:
            begins = marks.passage_starts(ids[start : start + length])
            own = [
                min(limit, whole - done)
                for whole in np.diff(begins, append=length).tolist()
                for done in range(0, whole, limit)
            ]
            parts += own
            counts.append(len(own))
        start += length
    cut = torch.tensor(parts)
    place = batch.lengths.device
    return RaggedBatch(batch.token_ids, cut.to(place), cut), torch.tensor(counts)


def _is_ampere(device: torch.device) -> bool:
    """Whether a GPU is of the generation of 2020 or a later one."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
