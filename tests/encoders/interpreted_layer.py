"""A transformer's Triton kernels, run by Triton's interpreter on a CPU; a process starts this.

Triton reads TRITON_INTERPRET when it is imported, so that a process has one kind of kernel.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from clrelkt.encoders.fused_layer import LayerWeights, fused_layer, spans_of
from clrelkt.encoders.ragged_kernels import LayerTiles
from clrelkt.encoders.ragged_layout import GroupedAttention, TextLayout

WIDTH, HEADS, INNER, EPSILON = 48, 3, 80, 1e-5
# Several texts in a block, a text of several blocks, one of exactly one, a single token.
LENGTHS = {
    "mixed": (3, 17, 1, 40, 5, 33, 16, 2),
    "long": (70,),
    "one token": (1,),
}


def made(dtype: torch.dtype, tokens: int) -> list[torch.Tensor]:
    """Return hidden states and a layer's parameters."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    def norm() -> tuple[torch.Tensor, torch.Tensor]:
        return 1 + drawn(WIDTH), drawn(WIDTH)

    attention = drawn(3 * WIDTH, WIDTH), drawn(3 * WIDTH), drawn(WIDTH, WIDTH), drawn(WIDTH)
    inner = drawn(INNER, WIDTH), drawn(INNER), drawn(WIDTH, INNER), drawn(WIDTH)
    tensors = (drawn(tokens, WIDTH), *attention, *norm(), *inner, *norm())
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def plain(states: torch.Tensor, weights: LayerWeights, layout: TextLayout) -> torch.Tensor:
    """Return what the layer is by definition (Devlin et al. 2019, after Vaswani et al. 2017)."""
    packed = functional.linear(states, weights.attention, weights.attention_bias)
    three = packed.view(len(states), 3, HEADS, -1).unbind(1)
    attended = functional.linear(
        GroupedAttention(layout)(*three), weights.output, weights.output_bias
    )
    middle = functional.layer_norm(
        states + attended, (WIDTH,), weights.first_gain, weights.first_bias, EPSILON
    )
    inner = functional.gelu(functional.linear(middle, weights.inner, weights.inner_bias))
    outer = functional.linear(inner, weights.outer, weights.outer_bias)
    return functional.layer_norm(
        middle + outer, (WIDTH,), weights.second_gain, weights.second_bias, EPSILON
    )


def check(lengths: tuple[int, ...], dtype: torch.dtype, limit: float) -> None:
    layout = TextLayout(torch.tensor(lengths), lengths)
    tokens = sum(lengths)
    tiles = LayerTiles(lines=4, programs=5, block=16)
    spans = spans_of(layout, tiles)
    pull = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = made(torch.float64, tokens)
    right = plain(expected[0], LayerWeights(*expected[1:]), layout)
    (right * pull).sum().backward()
    found = made(dtype, tokens)
    weights = LayerWeights(*found[1:])
    states = fused_layer(found[0], weights, spans, HEADS, EPSILON, tiles)
    (states.float() * pull).sum().backward()
    with torch.no_grad():
        alone = fused_layer(found[0], weights, spans, HEADS, EPSILON, tiles)
    assert torch.equal(alone, states)
    pairs = {"states": (states, right)}
    names = ("states' gradient", *LayerWeights._fields)
    for name, own, other in zip(names, found, expected, strict=True):
        assert own.grad is not None
        assert other.grad is not None
        pairs[name] = own.grad, other.grad
    for name, (value, exact) in pairs.items():
        assert value.dtype == dtype
        error = (value - exact).norm() / exact.norm().clamp(min=1e-3)
        assert error < limit, f"{name}, {lengths}, {dtype}: off by {error:.2g}"


def main() -> None:
    for lengths in LENGTHS.values():
        check(lengths, torch.float32, 2e-6)
    check(LENGTHS["mixed"], torch.float16, 4e-3)
    print("as expected")


if __name__ == "__main__":
    main()
