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

from clrelkt.encoders.ragged_layout import Attention, Bias, TextLayout

__all__ = ["BIASED", "RaggedPass", "ragged_pass"]

RaggedPass = Callable[
    [Any, torch.Tensor, TextLayout, Attention, torch.dtype],
    torch.Tensor,
]
"""Model, token ids (tokens,), layout, attention and dtype to hidden states (tokens, width)."""

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


def _bert(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    attention: Attention,
    dtype: torch.dtype,
) -> torch.Tensor:
    """BERT, RoBERTa, XLM-R and CamemBERT: LayerNorm after each of attention and feed-forward."""
    embeddings = model.embeddings
    # RoBERTa's places begin behind the padding token's.
    first = embeddings.padding_idx + 1 if model.config.model_type in _ROBERTA else 0
    summed = _rows(embeddings.word_embeddings, token_ids) + _rows(
        embeddings.position_embeddings, layout.positions + first
    )
    states = _norm(summed + embeddings.token_type_embeddings.weight[0], embeddings.LayerNorm, dtype)
    heads = model.config.num_attention_heads
    for layer in model.encoder.layer:
        own, output = layer.attention.self, layer.attention.output
        query, key, value = _projected(states, (own.query, own.key, own.value), heads)
        attended = _linear(attention(query, key, value), output.dense)
        states = _add_norm(states, attended, output.LayerNorm)
        states = _feed_forward(states, layer)
    return states


def _mpnet(
    model: Any,
    token_ids: torch.Tensor,
    layout: TextLayout,
    attention: Attention,
    dtype: torch.dtype,
) -> torch.Tensor:
    """MPNet: like BERT, with a bias on scores that depends on how far apart two tokens are."""
    embeddings, encoder = model.embeddings, model.encoder
    summed = _rows(embeddings.word_embeddings, token_ids) + _rows(
        embeddings.position_embeddings, layout.positions + embeddings.padding_idx + 1
    )
    states = _norm(summed, embeddings.LayerNorm, dtype)
    bias = _relative_bias(encoder)
    heads = model.config.num_attention_heads
    for layer in encoder.layer:
        own = layer.attention.attn
        query, key, value = _projected(states, (own.q, own.k, own.v), heads)
        attended = _linear(attention(query, key, value, bias=bias), own.o)
        states = _add_norm(states, attended, layer.attention.LayerNorm)
        states = _feed_forward(states, layer)
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
    dtype: torch.dtype,
) -> torch.Tensor:
    """ModernBERT: rotary places, LayerNorm before, gated feed-forward, windows in most layers."""
    config = model.config
    embeddings = model.embeddings
    states = _norm(_rows(embeddings.tok_embeddings, token_ids), embeddings.norm, dtype)
    rotations = {
        kind: _rotation(model.rotary_emb, kind, layout, dtype) for kind in set(config.layer_types)
    }
    heads = config.num_attention_heads
    for layer in model.layers:
        rotation = rotations[layer.attention_type]
        window = config.sliding_window if layer.attention_type == "sliding_attention" else None
        normal = (
            states
            if isinstance(layer.attn_norm, torch.nn.Identity)
            else _norm(states, layer.attn_norm, dtype)
        )
        query, key, value = (
            _linear(normal, layer.attn.Wqkv).view(len(states), 3, heads, -1).unbind(1)
        )
        attended = attention(
            _rotate(query, *rotation), _rotate(key, *rotation), value, window=window
        )
        states = states + _linear(attended, layer.attn.Wo)
        passed, gate = _linear(_norm(states, layer.mlp_norm, dtype), layer.mlp.Wi).chunk(2, dim=-1)
        states = states + _linear(layer.mlp.act(passed) * gate, layer.mlp.Wo)
    return _norm(states, model.final_norm, dtype)


def _rotation(
    rotary: Any, kind: str, layout: TextLayout, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines, shape (tokens, 1, width / 2) each."""
    frequencies = getattr(rotary, f"{kind}_inv_freq").to(layout.lengths.device)
    angles = layout.positions.unsqueeze(1) * frequencies
    scale = getattr(rotary, f"{kind}_attention_scaling")
    return (angles.cos() * scale).to(dtype).unsqueeze(1), (angles.sin() * scale).to(
        dtype
    ).unsqueeze(1)


def _rotate(tensor: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = tensor.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


def _rows(table: Any, rows: torch.Tensor) -> torch.Tensor:
    return functional.embedding(rows, table.weight)


def _projected(
    states: torch.Tensor, layers: tuple[Any, Any, Any], heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value, shape (tokens, heads, width) each."""
    if states.device.type == "cpu":
        query, key, value = (
            _linear(states, layer).view(len(states), heads, -1) for layer in layers
        )
        return query, key, value
    # One product instead of three; joining the matrices costs less than two starts of a kernel.
    weight = torch.cat([layer.weight.to(states.dtype) for layer in layers])
    bias = torch.cat([layer.bias.to(states.dtype) for layer in layers])
    joined = functional.linear(states, weight, bias).view(len(states), 3, heads, -1)
    query, key, value = joined.unbind(1)
    return query, key, value


def _feed_forward(states: torch.Tensor, layer: Any) -> torch.Tensor:
    inner = layer.intermediate.intermediate_act_fn(_linear(states, layer.intermediate.dense))
    return _add_norm(states, _linear(inner, layer.output.dense), layer.output.LayerNorm)


def _linear(states: torch.Tensor, layer: Any) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.to(states.dtype)
    return functional.linear(states, layer.weight.to(states.dtype), bias)


def _add_norm(states: torch.Tensor, added: torch.Tensor, norm: Any) -> torch.Tensor:
    return _norm(states + added, norm, states.dtype)


def _norm(states: torch.Tensor, norm: Any, dtype: torch.dtype) -> torch.Tensor:
    states = states.to(dtype)
    weight = norm.weight.to(dtype)
    bias = None if norm.bias is None else norm.bias.to(dtype)
    return functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps)
