"""A transformer's layer as one function of autograd, on a GPU in 16 bits.

It computes what a layer of BERT, RoBERTa or XLM-R does: attention, a sum with LayerNorm, the
feed-forward part, a second sum with LayerNorm. Products of matrices are the device's library's;
what lies between them is done by ``ragged_kernels``, which reads each number once where one
operation after the other would read it three times. Every sum is taken in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clrelkt.encoders.ragged import to_device
from clrelkt.encoders.ragged_layout import TextLayout
from clrelkt.encoders.triton_kernels import has_kernels, on_device

if TYPE_CHECKING:
    from clrelkt.encoders.ragged_kernels import LayerTiles, Spans

__all__ = ["LayerWeights", "can_fuse", "fused_layer", "spans_of", "text_blocks"]

_WIDEST = 2048
_LONGEST = 1024
"""Texts of more tokens are better served by attention made for long ones."""
_HEAD_WIDTHS = (16, 32, 64, 128)


class LayerWeights(NamedTuple):
    """A layer's parameters in the type that it computes in; matrices are (output, input).

    ``attention`` holds queries, keys and values beside each other.
    """

    attention: torch.Tensor
    attention_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    first_gain: torch.Tensor
    first_bias: torch.Tensor
    inner: torch.Tensor
    inner_bias: torch.Tensor
    outer: torch.Tensor
    outer_bias: torch.Tensor
    second_gain: torch.Tensor
    second_bias: torch.Tensor


def can_fuse(config: Any, layout: TextLayout) -> bool:
    """Whether the layers of a model like BERT can be computed here, where ``layout`` lies."""
    width = config.hidden_size // config.num_attention_heads
    return (
        config.hidden_act == "gelu"
        and config.hidden_size <= _WIDEST
        and width in _HEAD_WIDTHS
        and layout.longest <= _LONGEST
        and layout.lengths.device.type == "cuda"
        and has_kernels(layout.lengths.device)
    )


def spans_of(layout: TextLayout, tiles: LayerTiles | None = None) -> Spans:
    """Return where each token's text begins and ends, and the blocks that attention goes over."""
    from clrelkt.encoders.ragged_kernels import LayerTiles, Spans

    own = layout.text_of_token
    starts, ends = layout.starts.int()[own], (layout.ends + 1).int()[own]
    firsts = torch.tensor(text_blocks(layout.host_lengths, (tiles or LayerTiles()).block))
    return Spans(starts, ends, to_device(firsts.int(), own.device))


def text_blocks(lengths: Sequence[int], most: int) -> list[int]:
    """Return the first row of each block of at most ``most`` tokens, and the number of tokens.

    Neighbouring texts that fit share a block; a longer one begins with a block of its own, so that
    its tokens meet as few of other texts as can be.
    """
    firsts: list[int] = []
    row = room = 0
    for length in lengths:
        if length > room:
            firsts += range(row, row + length, most)
            room = most - length if length <= most else 0
        else:
            room -= length
        row += length
    return [*firsts, row]


def fused_layer(
    states: torch.Tensor,
    weights: LayerWeights,
    spans: Spans,
    heads: int,
    epsilon: float,
    tiles: LayerTiles | None = None,
) -> torch.Tensor:
    """Return the hidden states behind the layer, shape (tokens, width), like ``states``."""
    if tiles is None:
        from clrelkt.encoders.ragged_kernels import LayerTiles

        tiles = LayerTiles()
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (states, *weights))
    found: torch.Tensor = _Layer.apply(  # type: ignore[no-untyped-call]
        spans, heads, epsilon, tiles, keep, states, *weights
    )
    return found


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spans: Spans,
        heads: int,
        epsilon: float,
        tiles: LayerTiles,
        keep: bool,
        states: torch.Tensor,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        with on_device(states.device):
            return _forward(ctx, spans, heads, epsilon, tiles, keep, states, LayerWeights(*tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with on_device(gradient.device):
            return None, None, None, None, None, *_backward(ctx, gradient.contiguous())


def _forward(
    ctx: Any,
    spans: Spans,
    heads: int,
    epsilon: float,
    tiles: LayerTiles,
    keep: bool,
    states: torch.Tensor,
    weights: LayerWeights,
) -> torch.Tensor:
    from clrelkt.encoders import ragged_kernels as kernels

    packed = functional.linear(states, weights.attention, weights.attention_bias)
    attended, levels = kernels.attend(packed, spans, heads, tiles)
    middle, first = kernels.add_norm(
        states,
        functional.linear(attended, weights.output),
        weights.output_bias,
        weights.first_gain,
        weights.first_bias,
        epsilon,
        tiles,
        keep=keep,
    )
    before = functional.linear(middle, weights.inner, weights.inner_bias)
    inner = functional.gelu(before)
    found, second = kernels.add_norm(
        middle,
        functional.linear(inner, weights.outer),
        weights.outer_bias,
        weights.second_gain,
        weights.second_bias,
        epsilon,
        tiles,
        keep=keep,
    )
    if first is not None and second is not None:
        ctx.spans, ctx.tiles = spans, tiles
        ctx.save_for_backward(
            *weights, states, packed, attended, levels, middle, before, inner, *first, *second
        )
    return found


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
    from clrelkt.encoders import ragged_kernels as kernels

    tensors = ctx.saved_tensors
    weights = LayerWeights(*tensors[:12])
    states, packed, attended, levels, middle, before, inner = tensors[12:19]
    first, second = kernels.Moments(*tensors[19:22]), kernels.Moments(*tensors[22:])
    tiles: LayerTiles = ctx.tiles
    width, wide = states.shape[1], before.shape[1]
    sums = kernels.Sums(states, 6 * width + wide, tiles.programs)
    # What flows past a half of the layer is the sum that the product is added to.
    grad = kernels.add_norm_backward(gradient, second, weights.second_gain, sums, 0, tiles)
    grad_outer = grad.T @ inner
    grad_before = kernels.gelu_backward(grad @ weights.outer, before, sums, 3 * width)
    grad_inner = grad_before.T @ middle
    grad = grad.addmm_(grad_before, weights.inner)
    del grad_before
    after = 3 * width + wide
    grad = kernels.add_norm_backward(grad, first, weights.first_gain, sums, after, tiles)
    grad_output = grad.T @ attended
    grad_packed, grad_attention_bias = kernels.attend_backward(
        packed, attended, levels, grad @ weights.output, ctx.spans, tiles
    )
    grad_attention = grad_packed.T @ states
    grad = grad.addmm_(grad_packed, weights.attention)
    outer_bias, second_gain, second_bias, inner_bias, output_bias, first_gain, first_bias = (
        torch.split(sums.total(states.dtype), [width] * 3 + [wide] + [width] * 3)
    )
    return grad, *LayerWeights(
        grad_attention,
        grad_attention_bias,
        grad_output,
        output_bias,
        first_gain,
        first_bias,
        grad_inner,
        inner_bias,
        grad_outer,
        outer_bias,
        second_gain,
        second_bias,
    )
