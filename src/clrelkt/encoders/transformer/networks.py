"""Forward passes of transformer families over flat rows of tokens.

Each takes a model of Hugging Face and does what its ``forward`` does, without padding: the model
holds the parameters, and stays as it is for saving. There is no dropout, in training neither: each
distinct text of a step is then encoded once, whatever it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from clrelkt.encoders.products import linear
from clrelkt.encoders.transformer.cpu_layers import CpuLayers
from clrelkt.encoders.transformer.fused_layers import FusedLayers
from clrelkt.encoders.transformer.layout import Attention, Bias, TextLayout
from clrelkt.encoders.transformer.working_copies import WorkingCopies

__all__ = [
    "BIASED",
    "LookUp",
    "RaggedPass",
    "bert_embeddings",
    "cpu_layers",
    "fused_layers",
    "layer_weights",
    "ragged_pass",
]

RaggedPass = Callable[
    [Any, torch.Tensor, TextLayout, Attention, WorkingCopies],
    torch.Tensor,
]
"""Model, token ids (tokens,), layout, attention and weights to hidden states (tokens, width)."""

LookUp = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Numbers of rows (rows,) and a table to the table's rows (rows, width)."""

BIASED = frozenset(("mpnet",))
"""Kinds of models whose attention adds a bias to the scores."""

_ROBERTA = ("camembert", "roberta", "xlm-roberta")


def ragged_pass(config: Any) -> RaggedPass | None:
    """Return the pass for a model of ``config``, or None where there is none for its kind."""
    kind = config.model_type
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return None
    if kind == "bert" or kind in _ROBERTA:
        absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
        return _bert if absolute else None
    if kind == "mpnet":
        return _mpnet
    if kind == "modernbert":
        plain = all(
            rope is not None and rope.get("rope_type") == "default"
            for rope in (config.rope_parameters or {}).values()
        )
        return _modernbert if plain else None
    return None


def fused_layers(model: Any) -> FusedLayers | None:
    """Return the layers of a model as one function; None where there is none for its kind."""
    return FusedLayers.of(model) if ragged_pass(model.config) is _bert else None


def cpu_layers(model: Any) -> CpuLayers | None:
    """Return the same for a CPU."""
    return CpuLayers.of(model) if ragged_pass(model.config) is _bert else None


def layer_weights(model: Any) -> list[tuple[torch.nn.Parameter, ...]]:
    """Return the parameters of a model's layers, those that are multiplied at once together."""
    joined: list[tuple[torch.nn.Parameter, ...]] = []
    taken: set[int] = set()
    kind = model.config.model_type
    for layer in model.layers if kind == "modernbert" else model.encoder.layer:
        if kind == "modernbert":
            continue
        three = _three(layer, kind)
        joined += [tuple(part.weight for part in three), tuple(part.bias for part in three)]
        taken |= {id(parameter) for group in joined[-2:] for parameter in group}
    tables = {id(parameter) for parameter in model.embeddings.parameters()}
    if kind in BIASED:
        tables.add(id(model.encoder.relative_attention_bias.weight))
    return joined + [
        (parameter,)
        for parameter in model.parameters()
        if id(parameter) not in taken and id(parameter) not in tables
    ]


def _three(layer: Any, kind: str) -> tuple[Any, Any, Any]:
    if kind == "mpnet":
        own = layer.attention.attn
        return own.q, own.k, own.v
    own = layer.attention.self
    return own.query, own.key, own.value


def _bert(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    attention: Attention,
    weights: WorkingCopies,
) -> torch.Tensor:
    """BERT, RoBERTa, XLM-R and CamemBERT: LayerNorm after each of attention and feed-forward."""
    states = bert_embeddings(model, token_ids, layout).to(weights.dtype)
    for layer in model.encoder.layer:
        attended = attention(*_projected(states, layer, model.config, weights))
        output = layer.attention.output
        states = _add_norm(
            states, _linear(attended, output.dense, weights), output.LayerNorm, weights
        )
        states = _feed_forward(states, layer, weights)
    return states


def bert_embeddings(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    look_up: LookUp = functional.embedding,
) -> torch.Tensor:
    """Return what the first layer of a model like BERT is given, (tokens, width), float32."""
    embeddings = model.embeddings
    # RoBERTa's places begin behind the padding token's.
    kind = model.config.model_type
    first = embeddings.padding_idx + 1 if kind in _ROBERTA else 0
    summed = look_up(token_ids, embeddings.word_embeddings.weight) + look_up(
        layout.positions + first, embeddings.position_embeddings.weight
    )
    found: torch.Tensor = embeddings.LayerNorm(summed + embeddings.token_type_embeddings.weight[0])
    return found


def _mpnet(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    attention: Attention,
    weights: WorkingCopies,
) -> torch.Tensor:
    """MPNet: like BERT, with a bias on scores that depends on how far apart two tokens are."""
    embeddings, encoder = model.embeddings, model.encoder
    summed = _rows(embeddings.word_embeddings, token_ids) + _rows(
        embeddings.position_embeddings, layout.positions + embeddings.padding_idx + 1
    )
    states: torch.Tensor = embeddings.LayerNorm(summed).to(weights.dtype)
    bias = _relative_bias(encoder)
    for layer in encoder.layer:
        attended = attention(*_projected(states, layer, model.config, weights), bias=bias)
        own = layer.attention
        states = _add_norm(states, _linear(attended, own.attn.o, weights), own.LayerNorm, weights)
        states = _feed_forward(states, layer, weights)
    return states


def _relative_bias(encoder: Any) -> Bias:
    made: dict[int, torch.Tensor] = {}

    def bias(length: int, device: torch.device) -> torch.Tensor:
        if length not in made:
            places = torch.arange(length, device=device)
            buckets = encoder.relative_position_bucket(places[None, :] - places[:, None])
            table = encoder.relative_attention_bias.weight
            made[length] = functional.embedding(buckets, table).permute(2, 0, 1).unsqueeze(0)
        return made[length]

    return bias


def _modernbert(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    attention: Attention,
    weights: WorkingCopies,
) -> torch.Tensor:
    """ModernBERT: rotary places, LayerNorm before, gated feed-forward, windows in most layers."""
    config = model.config
    embeddings = model.embeddings
    states = embeddings.norm(_rows(embeddings.tok_embeddings, token_ids)).to(weights.dtype)
    rotations = {
        kind: _rotation(model.rotary_emb, kind, layout, weights.dtype)
        for kind in set(config.layer_types)
    }
    heads = config.num_attention_heads
    for layer in model.layers:
        rotation = rotations[layer.attention_type]
        window = config.sliding_window if layer.attention_type == "sliding_attention" else None
        first = isinstance(layer.attn_norm, torch.nn.Identity)
        normal = states if first else _norm(states, layer.attn_norm, weights)
        projected = _linear(normal, layer.attn.Wqkv, weights).view(len(states), 3, heads, -1)
        query, key, value = projected.unbind(1)
        attended = attention(
            _rotate(query, *rotation), _rotate(key, *rotation), value, window=window
        )
        states = states + _linear(attended, layer.attn.Wo, weights)
        inner = _linear(_norm(states, layer.mlp_norm, weights), layer.mlp.Wi, weights)
        passed, gate = inner.chunk(2, dim=-1)
        states = states + _linear(layer.mlp.act(passed) * gate, layer.mlp.Wo, weights)
    return _norm(states, model.final_norm, weights)


def _rotation(
    rotary: Any, kind: str, layout: TextLayout, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines, shape (tokens, 1, width / 2) each."""
    frequencies = getattr(rotary, f"{kind}_inv_freq").to(layout.lengths.device)
    angles = (layout.positions.unsqueeze(1) * frequencies).unsqueeze(1)
    scale = getattr(rotary, f"{kind}_attention_scaling")
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def _rotate(tensor: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = tensor.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


def _rows(table: Any, rows: torch.Tensor) -> torch.Tensor:
    return functional.embedding(rows, table.weight)


def _projected(
    states: torch.Tensor, layer: Any, config: Any, weights: WorkingCopies
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value, shape (tokens, heads, width) each."""
    three = _three(layer, config.model_type)
    heads = config.num_attention_heads
    joined = weights.joined(three[0].weight)
    if joined is None:
        query, key, value = (
            _linear(states, part, weights).view(len(states), heads, -1) for part in three
        )
        return query, key, value
    # One product instead of three.
    found = linear(states, joined, weights.joined(three[0].bias))
    query, key, value = found.view(len(states), 3, heads, -1).unbind(1)
    return query, key, value


def _feed_forward(states: torch.Tensor, layer: Any, weights: WorkingCopies) -> torch.Tensor:
    inner = _linear(states, layer.intermediate.dense, weights)
    inner = layer.intermediate.intermediate_act_fn(inner)
    added = _linear(inner, layer.output.dense, weights)
    return _add_norm(states, added, layer.output.LayerNorm, weights)


def _linear(states: torch.Tensor, layer: Any, weights: WorkingCopies) -> torch.Tensor:
    bias = None if layer.bias is None else weights(layer.bias)
    return linear(states, weights(layer.weight), bias)


def _add_norm(
    states: torch.Tensor, added: torch.Tensor, norm: Any, weights: WorkingCopies
) -> torch.Tensor:
    return weights.add_norm(states, added, weights(norm.weight), weights(norm.bias), norm.eps)


def _norm(states: torch.Tensor, norm: Any, weights: WorkingCopies) -> torch.Tensor:
    bias = None if norm.bias is None else weights(norm.bias)
    return functional.layer_norm(
        states, norm.normalized_shape, weights(norm.weight), bias, norm.eps
    )
