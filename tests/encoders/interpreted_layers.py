"""A transformer's Triton kernels, run by Triton's interpreter on a CPU; a process starts this.

Triton reads TRITON_INTERPRET when it is imported, so that a process has one kind of kernel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from clrelkt.encoders.transformer.fused_layers import FusedLayers
from clrelkt.encoders.transformer.grouped_attention import GroupedAttention
from clrelkt.encoders.transformer.kernels import LayerTiles
from clrelkt.encoders.transformer.layer_rooms import LayerParameters
from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.encoders.transformer.product_kernels import (
    GeluProducts,
    ProductTiles,
    gelu_product,
    gelu_product_backward,
)
from clrelkt.encoders.transformer.text_blocks import SpanTable, TextBlocks

WIDTH, HEADS, INNER, EPSILON = 48, 3, 80, 1e-5
LAYERS = 2
PRODUCTS = GeluProducts(
    ProductTiles(rows=32, columns=16, depth=16, group=2),
    ProductTiles(rows=16, columns=16, depth=16, group=2),
    least_rows=0,
)
# Several texts in a block, a text of several blocks, one of exactly one, a single token.
LENGTHS = {
    "mixed": (3, 17, 1, 40, 5, 33, 16, 2),
    "long": (70,),
    "one token": (1,),
}


def made(dtype: torch.dtype, tokens: int) -> tuple[torch.Tensor, list[LayerParameters]]:
    """Return hidden states, and the parameters of layers."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, about: float = 0.0) -> torch.Tensor:
        return about + torch.randn(*shape, generator=generator) * 0.3

    def layer() -> LayerParameters:
        square, gain = (WIDTH, WIDTH), {"about": 1.0}
        matrices = [*(drawn(*square) for _ in range(4)), drawn(INNER, WIDTH), drawn(WIDTH, INNER)]
        biases = [drawn(WIDTH) for _ in range(4)]
        vectors = [
            drawn(WIDTH, **gain),
            drawn(WIDTH),
            drawn(INNER),
            drawn(WIDTH),
            drawn(WIDTH, **gain),
            drawn(WIDTH),
        ]
        found = (*matrices, *biases, *vectors)
        return LayerParameters(*(part.to(dtype).requires_grad_() for part in found))

    layers = [layer() for _ in range(LAYERS)]
    return drawn(tokens, WIDTH).to(dtype).requires_grad_(), layers


def plain(states: torch.Tensor, own: LayerParameters, layout: TextLayout) -> torch.Tensor:
    """Return what the layer is by definition (Devlin et al. 2019, after Vaswani et al. 2017)."""
    three = [
        functional.linear(states, weight, bias).view(len(states), HEADS, -1)
        for weight, bias in zip(own[:3], own[6:9], strict=True)
    ]
    attended = functional.linear(GroupedAttention(layout)(*three), own.output, own.output_bias)
    middle = functional.layer_norm(
        states + attended, (WIDTH,), own.first_gain, own.first_bias, EPSILON
    )
    inner = functional.gelu(functional.linear(middle, own.inner, own.inner_bias))
    outer = functional.linear(inner, own.outer, own.outer_bias)
    return functional.layer_norm(
        middle + outer, (WIDTH,), own.second_gain, own.second_bias, EPSILON
    )


def check(lengths: tuple[int, ...], dtype: torch.dtype, limit: float, tiles: LayerTiles) -> None:
    layout = TextLayout(torch.tensor(lengths), lengths)
    tokens = sum(lengths)
    pull = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(1))
    right, exact = made(torch.float64, tokens)
    expected = right
    for layer in exact:
        expected = plain(expected, layer, layout)
    (expected * pull).sum().backward()
    given, parameters = made(torch.float32, tokens)
    layers = FusedLayers(parameters, HEADS, EPSILON)
    with torch.inference_mode():
        alone = layers(given.to(dtype), layout, tiles)
    found = layers(given.to(dtype), layout, tiles)
    (found.float() * pull).sum().backward()
    assert torch.equal(alone, found)
    assert found.dtype == dtype
    pairs = {"states": (found, expected), "states' gradient": (given.grad, right.grad)}
    for number, (own, other) in enumerate(zip(parameters, exact, strict=True)):
        for name, part, same in zip(LayerParameters._fields, own, other, strict=True):
            pairs[f"{name} of layer {number}"] = part.grad, same.grad
    for name, (value, wanted) in pairs.items():
        assert value is not None
        assert wanted is not None
        # A bias of keys adds the same to all scores of a token: its gradient is 0 but for rounding.
        error = (value - wanted).norm() / wanted.norm().clamp(min=10)
        assert error < limit, f"{name}, {lengths}, {dtype}: off by {error:.2g}"


def check_filled(
    lengths: tuple[int, ...], dtype: torch.dtype, limit: float, tiles: LayerTiles
) -> None:
    """A recorded batch is filled up with tokens and with blocks that hold nothing."""
    tokens = sum(lengths)
    given, parameters = made(torch.float32, tokens)
    layers = FusedLayers(
        [LayerParameters(*(p.detach() for p in own)) for own in parameters], 3, 1e-5
    )
    views = layers._room.filled(layers._parameters, dtype)
    pull = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(1))
    found = []
    for fill, blocks in ((0, 0), (21, 4)):
        filled = [*lengths, *[1] * fill]
        own_blocks = TextBlocks.of(filled, tiles.block, tiles.whole)
        fitting = SpanTable.fitting(own_blocks)
        table = SpanTable(
            fitting.tokens,
            fitting.blocks + blocks,
            fitting.wholes + blocks * bool(tiles.whole),
            fitting.parts + blocks,
        )
        spans = table.spans(table.made(filled, own_blocks))
        states, grad = (
            functional.pad(own.detach(), (0, 0, 0, fill)).to(dtype) for own in (given, pull)
        )
        room = layers.new_gradients(slice(0, LAYERS))
        rooms = [torch.full_like(states, torch.nan) if fill else None for _ in range(2)]
        outputs, kept = layers.ahead(views, states, spans, tiles, keep=True, to=rooms[0])
        grad = layers.back(views, room, kept, grad, spans, tiles, rooms[1])
        assert not fill or (outputs is rooms[0] and grad is rooms[1])
        assert not grad[tokens:].any()
        found.append(
            [outputs[:tokens], grad[:tokens], *(part for own in room for part in own.parts)]
        )
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=limit, atol=10 * limit)


def check_products(rows: int, depth: int, columns: int, products: GeluProducts) -> None:
    """Compare both ways through a product and its GELU with what they are in double precision."""
    generator = torch.Generator().manual_seed(rows)

    def drawn(*shape: int, scale: float) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).half()

    states, grad = drawn(rows, depth, scale=2.0), drawn(rows, depth, scale=1.0)
    weight, bias = drawn(columns, depth, scale=depth**-0.5), drawn(columns, scale=1.0)
    outer = drawn(depth, columns, scale=depth**-0.5)
    before = functional.linear(states.double(), weight.double(), bias.double()).requires_grad_()
    expected = functional.gelu(before)
    (expected * (grad.double() @ outer.double())).sum().backward()
    inner, slopes = gelu_product(states, weight, bias, products.forward, keep=True)
    alone, nothing = gelu_product(states, weight, bias, products.forward, keep=False)
    assert nothing is None
    assert slopes is not None
    assert torch.equal(alone, inner)
    # Rounding to 11 bits is off by 2**-11 of a number at most.
    torch.testing.assert_close(inner.double(), expected.detach(), rtol=6e-4, atol=2e-6)
    table = torch.full((2 + products.blocks(rows) * 2, columns + 3), float("nan"))
    found = gelu_product_backward(grad, outer, slopes, table[:, 2:-1], products.backward)
    assert before.grad is not None
    torch.testing.assert_close(found.double(), before.grad, rtol=1.2e-3, atol=1e-3)
    total = table[:, 2:-1].sum(0).double()
    torch.testing.assert_close(total, before.grad.sum(0), rtol=1e-3, atol=rows**0.5 * 1e-3)
    assert table[:, [0, 1, -1]].isnan().all()


def main() -> None:
    # Blocks that end with the last row or beyond it; one step and several.
    for rows, depth, columns in ((70, 48, 80), (32, 16, 32), (1, 16, 16)):
        check_products(rows, depth, columns, PRODUCTS)
    tiles = LayerTiles(lines=4, programs=5, block=16, gelu_products=None)
    # Texts of one, two and three blocks, and such as are cut into parts.
    whole = replace(tiles, whole=48)
    check_filled(LENGTHS["mixed"], torch.float32, 1e-5, replace(tiles, whole=32))
    check_filled(LENGTHS["mixed"], torch.float16, 1e-3, replace(tiles, gelu_products=PRODUCTS))
    for lengths in LENGTHS.values():
        check(lengths, torch.float32, 1e-5, whole)
    check(LENGTHS["mixed"], torch.float32, 1e-5, tiles)
    check(LENGTHS["mixed"], torch.float16, 1e-2, whole)
    check(LENGTHS["mixed"], torch.float16, 1e-2, replace(tiles, gelu_products=PRODUCTS))
    print("as expected")


if __name__ == "__main__":
    main()
