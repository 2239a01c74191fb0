"""A layer's parameters in one order, and rooms in which copies or gradients of all lie in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["LayerParameters", "LayerViews", "layer_parameters", "room_views"]


class LayerParameters(NamedTuple):
    """A layer's parameters, in the order in which copies and gradients lie behind each other.

    Matrices are (output, input). The last seven stand in the order in which their gradients are
    summed.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    inner: torch.Tensor
    outer: torch.Tensor
    query_bias: torch.Tensor
    key_bias: torch.Tensor
    value_bias: torch.Tensor
    outer_bias: torch.Tensor
    second_gain: torch.Tensor
    second_bias: torch.Tensor
    inner_bias: torch.Tensor
    output_bias: torch.Tensor
    first_gain: torch.Tensor
    first_bias: torch.Tensor


class LayerViews(NamedTuple):
    """Views of a layer's part of a room.

    ``attention`` are queries, keys and values beside each other, ``sums`` the last seven.
    """

    parts: LayerParameters
    attention: torch.Tensor
    attention_bias: torch.Tensor
    sums: torch.Tensor


def layer_parameters(layer: Any) -> LayerParameters:
    """Return the parameters of a layer of BERT's kind."""
    attention, output = layer.attention.self, layer.attention.output
    inner, outer = layer.intermediate.dense, layer.output
    return LayerParameters(
        attention.query.weight,
        attention.key.weight,
        attention.value.weight,
        output.dense.weight,
        inner.weight,
        outer.dense.weight,
        attention.query.bias,
        attention.key.bias,
        attention.value.bias,
        outer.dense.bias,
        outer.LayerNorm.weight,
        outer.LayerNorm.bias,
        inner.bias,
        output.dense.bias,
        output.LayerNorm.weight,
        output.LayerNorm.bias,
    )


def room_views(
    parameters: Sequence[LayerParameters], dtype: torch.dtype, room: torch.Tensor | None = None
) -> list[LayerViews]:
    """Return views of ``room``, or of new room, for all parameters or for their gradients."""
    sizes = [part.numel() for own in parameters for part in own]
    if room is None:
        room = parameters[0].query.new_empty(sum(sizes), dtype=dtype, requires_grad=False)
    pieces = torch.split_with_sizes(room, sizes)
    found: list[LayerViews] = []
    row = place = 0
    for own in parameters:
        flat = pieces[place : place + len(own)]
        place += len(own)
        parts = LayerParameters(
            *(piece.view(part.shape) for piece, part in zip(flat, own, strict=True))
        )
        width = own.query.shape[1]
        matrices = sum(part.numel() for part in own[:6])
        vectors = row + matrices
        ends = vectors + sum(part.numel() for part in own[6:])
        attention = room[row : row + 3 * width * width].view(-1, width)
        found.append(
            LayerViews(
                parts,
                attention,
                room[vectors : vectors + 3 * width],
                room[vectors + 3 * width : ends],
            )
        )
        row = ends
    return found
