"""Layers and attention on a CPU against plain PyTorch in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders.transformer import attention_products
from clrelkt.encoders.transformer.attention_products import has_products
from clrelkt.encoders.transformer.cpu_layers import CpuLayers
from clrelkt.encoders.transformer.grouped_attention import GroupedAttention
from clrelkt.encoders.transformer.layer_rooms import LayerParameters
from clrelkt.encoders.transformer.layout import TextLayout

WIDTH, HEADS, INNER, LAYERS, EPSILON = 48, 3, 80, 6, 1e-5
# A rounding to bfloat16 is off by 2^-9 at most; these are some in a row, and those of six layers
# there and back.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DEEP_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-2}
TYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            not has_products(torch.bfloat16), reason="no bfloat16 products here"
        ),
    ),
]
some_lengths = st.lists(st.integers(1, 24), min_size=1, max_size=12).map(sorted)


def drawn(seed: int, *shape: int, about: float = 0.0) -> torch.Tensor:
    return about + torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def made_layers() -> list[LayerParameters]:
    vectors = {"inner_bias": INNER}
    found = []
    for number in range(LAYERS):
        parts = []
        for place, name in enumerate(LayerParameters._fields):
            seed = 100 * number + place
            if place < 4:
                parts.append(drawn(seed, WIDTH, WIDTH))
            elif place < 6:
                shape = (INNER, WIDTH) if name == "inner" else (WIDTH, INNER)
                parts.append(drawn(seed, *shape))
            else:
                about = 1.0 if name.endswith("gain") else 0.0
                parts.append(drawn(seed, vectors.get(name, WIDTH), about=about))
        found.append(LayerParameters(*(part.requires_grad_() for part in parts)))
    return found


def exact_attention(
    three: list[torch.Tensor], lengths: list[int], mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return attention (tokens, heads, width), text by text; ``mask`` (heads, most, most)."""
    found = []
    for query, key, value in zip(*(part.split(lengths) for part in three), strict=True):
        scores = torch.einsum("qhw,khw->hqk", query, key) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores + mask[:, : len(query), : len(query)]
        found.append(torch.einsum("hqk,khw->qhw", scores.softmax(-1), value))
    return torch.cat(found)


def exact_layer(states: torch.Tensor, own: LayerParameters, lengths: list[int]) -> torch.Tensor:
    """Return what the layer is by definition (Devlin et al. 2019, after Vaswani et al. 2017)."""
    three = [
        functional.linear(states, weight, bias).view(len(states), HEADS, -1)
        for weight, bias in zip(own[:3], own[6:9], strict=True)
    ]
    attended = exact_attention(three, lengths).flatten(1)
    first = functional.linear(attended, own.output, own.output_bias)
    middle = functional.layer_norm(
        states + first, (WIDTH,), own.first_gain, own.first_bias, EPSILON
    )
    inner = functional.gelu(functional.linear(middle, own.inner, own.inner_bias))
    outer = functional.linear(inner, own.outer, own.outer_bias)
    return functional.layer_norm(
        middle + outer, (WIDTH,), own.second_gain, own.second_bias, EPSILON
    )


def layout_of(lengths: list[int]) -> TextLayout:
    return TextLayout(torch.tensor(lengths), tuple(lengths))


def error(found: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    # A bias of keys adds the same to all scores of a token: its gradient is 0 but for rounding.
    difference = (found - expected).detach().norm()
    return float(difference / expected.detach().norm().clamp(min=10))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lengths", [[1], [2, 3, 16, 17, 17, 33, 40], [70], [300, 310]])
def test_layers_and_their_gradients(lengths: list[int], dtype: torch.dtype) -> None:
    parameters = made_layers()
    layers = CpuLayers(parameters, HEADS, EPSILON)
    exact = [
        LayerParameters(*(p.detach().double().requires_grad_() for p in own)) for own in parameters
    ]
    given_ = drawn(7, sum(lengths), WIDTH).requires_grad_()
    right = given_.detach().double().requires_grad_()
    expected = right
    for own in exact:
        expected = exact_layer(expected, own, lengths)
    pull = drawn(8, *given_.shape)
    (expected * pull).sum().backward()
    # Twice: the second time in memory that the first has left behind.
    for _ in range(2):
        for part in [given_, *(part for own in parameters for part in own)]:
            part.grad = None
        with torch.inference_mode():
            alone = layers(given_.to(dtype), layout_of(lengths))
        found = layers(given_.to(dtype), layout_of(lengths))
        assert found.dtype == dtype
        assert torch.equal(alone, found)
        (found.float() * pull).sum().backward()
        assert error(found, expected) < DEEP_LIMITS[dtype]
        assert error(given_.grad, right.grad) < DEEP_LIMITS[dtype]
        for own, other in zip(parameters, exact, strict=True):
            for name, part, same in zip(LayerParameters._fields, own, other, strict=True):
                assert error(part.grad, same.grad) < DEEP_LIMITS[dtype], name


@pytest.mark.skipif(not has_products(torch.bfloat16), reason="no bfloat16 products here")
def test_in_16_bits_as_precise_as_plain_pytorch() -> None:
    lengths = [20, 33, 40]
    parameters = made_layers()
    pull = drawn(8, sum(lengths), WIDTH)
    results = []
    for kind in ("exact", "plain", "ours"):
        dtype = torch.float64 if kind == "exact" else torch.float32
        own = [LayerParameters(*(p.detach().to(dtype) for p in layer)) for layer in parameters]
        given_ = drawn(7, *pull.shape).to(dtype).requires_grad_()
        found = given_ if kind == "exact" else given_.bfloat16()
        if kind == "ours":
            found = CpuLayers(own, HEADS, EPSILON)(found, layout_of(lengths))
        else:
            for layer in own:
                found = exact_layer(found, LayerParameters(*(p.to(found) for p in layer)), lengths)
        (found.to(dtype) * pull).sum().backward()
        results.append((found, given_.grad))
    for right, plain, ours in zip(*results, strict=True):
        assert error(ours, right) < 1.25 * error(plain, right)


@pytest.mark.skipif(not has_products(torch.bfloat16), reason="no bfloat16 products here")
def test_in_16_bits_gradients_of_many_rows_keep_growing() -> None:
    """PyTorch's own LayerNorm adds up its gain's and bias's gradients in 16 bits."""
    (own,) = made_layers()[:1]
    states = torch.zeros(4000, WIDTH, dtype=torch.bfloat16)
    CpuLayers([own], HEADS, EPSILON)(states, layout_of([40] * 100)).sum().backward()
    assert own.second_bias.grad is not None
    assert (own.second_bias.grad == 4000).all()


def test_gradients_of_two_batches_add_up() -> None:
    """Each lies in memory that the next step uses again only where nothing holds it."""
    parameters = made_layers()
    layers = CpuLayers(parameters, HEADS, EPSILON)
    batches = [([64, 65], 1), ([60, 66], 2)]

    def flow(lengths: list[int], seed: int) -> None:
        found = layers(drawn(seed, sum(lengths), WIDTH), layout_of(lengths))
        (found * drawn(seed + 10, *found.shape)).sum().backward()

    def gradients() -> list[torch.Tensor]:
        found = [part.grad for own in parameters for part in own]
        return [part for part in found if part is not None]

    single = []
    for batch in batches:
        flow(*batch)
        single.append([part.clone() for part in gradients()])
        for own in parameters:
            for part in own:
                part.grad = None
    held = []
    for batch in batches:
        flow(*batch)
        held.append([part.clone() for part in gradients()])
    for one, other, both in zip(*single, held[1], strict=True):
        torch.testing.assert_close(both, one + other, rtol=1e-4, atol=1e-5)
    # Two ways there before two ways back.
    made = [layers(drawn(seed, sum(n), WIDTH), layout_of(n)) for n, seed in batches]
    for own in parameters:
        for part in own:
            part.grad = None
    for found, (_, seed) in zip(made, batches, strict=True):
        (found * drawn(seed + 10, *found.shape)).sum().backward()
    for again, both in zip(gradients(), held[1], strict=True):
        assert torch.equal(again, both)


def test_frozen_parameters_have_no_gradient() -> None:
    parameters = made_layers()
    for own in parameters[:5]:
        for part in own:
            part.requires_grad_(False)
    parameters[5].inner.requires_grad_(False)
    layers = CpuLayers(parameters, HEADS, EPSILON)
    layers(drawn(1, 9, WIDTH), layout_of([4, 5])).sum().backward()
    there = [
        name
        for name, part in zip(LayerParameters._fields, parameters[5], strict=True)
        if part.grad is not None
    ]
    assert there == [name for name in LayerParameters._fields if name != "inner"]
    assert all(part.grad is None for own in parameters[:5] for part in own)


def test_parameters_must_not_change_between_the_ways() -> None:
    parameters = made_layers()
    layers = CpuLayers(parameters, HEADS, EPSILON)
    found = layers(drawn(1, 9, WIDTH), layout_of([4, 5]))
    with torch.no_grad():
        parameters[0].inner.add_(1)
    with pytest.raises(RuntimeError, match="changed"):
        found.sum().backward()
    found = layers(drawn(1, 9, WIDTH), layout_of([4, 5]))
    found.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        found.sum().backward()


def test_a_copy_has_memory_of_its_own() -> None:
    layers = CpuLayers(made_layers(), HEADS, EPSILON)
    layers(drawn(1, 800, WIDTH), layout_of([400, 400]))
    assert layers.memory.free_bytes > 0
    assert copy.deepcopy(layers).memory.free_bytes == 0


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=25, deadline=None)
@given(
    lengths=some_lengths,
    kept=st.booleans(),
    window=st.none() | st.integers(0, 9),
    biased=st.booleans(),
)
def test_attention_of_groups(
    dtype: torch.dtype, lengths: list[int], kept: bool, window: int | None, biased: bool
) -> None:
    longest = max(lengths)
    bias = drawn(3, 1, HEADS, longest, longest).requires_grad_() if biased else None
    right_bias = None if bias is None else bias.detach().double().requires_grad_()
    given_ = [drawn(n, sum(lengths), HEADS, 16).mul(3).to(dtype).requires_grad_() for n in range(3)]
    exact = [part.detach().double().requires_grad_() for part in given_]
    mask = torch.zeros(HEADS, longest, longest, dtype=torch.float64)
    if window is not None:
        places = torch.arange(longest)
        mask.masked_fill_((places[:, None] - places).abs() > window, -torch.inf)
    if right_bias is not None:
        mask = mask + right_bias[0]
    expected = exact_attention(exact, lengths, mask).flatten(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_products, "_LONGEST_KEPT", 256 if kept else 0)
        found = GroupedAttention(layout_of(lengths))(
            *given_,
            window=window,
            bias=None if bias is None else lambda length, _: bias[..., :length, :length],
        )
        pull = drawn(9, *found.shape)
        (found.float() * pull).sum().backward()
    (expected * pull).sum().backward()
    assert found.dtype == dtype
    pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(given_, exact, strict=True))]
    if bias is not None and right_bias is not None:
        pairs.append((bias.grad, right_bias.grad))
    for one, other in pairs:
        assert error(one, other) < LIMITS[dtype]


def test_long_texts_come_one_by_one() -> None:
    """So that their scores take no more memory than those of a single text must."""
    groups = GroupedAttention(layout_of([500, 512, 512, 16, 16, 16]))._groups
    assert [(group.size, group.longest) for group in groups] == [
        (1, 500),
        (1, 512),
        (1, 512),
        (3, 16),
    ]


@pytest.mark.parametrize("dtype", TYPES)
def test_nothing_depends_on_what_memory_held(dtype: torch.dtype) -> None:
    lengths = [64, 66, 300]
    found = []
    for poisoned in (False, True):
        parameters = made_layers()
        table = drawn(3, 2000, WIDTH).requires_grad_()
        layers = CpuLayers(parameters, HEADS, EPSILON)
        if poisoned:
            plain = layers.memory.empty
            layers.memory.empty = lambda *shape, dtype, made=plain: made(  # type: ignore[method-assign]
                *shape, dtype=dtype
            ).fill_(torch.nan)
        states = layers.look_up(torch.arange(sum(lengths)), table).to(dtype)
        output = layers(states, layout_of(lengths))
        output.float().mul(drawn(2, *output.shape)).sum().backward()
        found.append([output, table.grad, *(part.grad for own in parameters for part in own)])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), max_size=30))
def test_rows_of_a_table_and_their_gradient(rows: list[int]) -> None:
    chosen = torch.tensor(rows, dtype=torch.int64)
    layers = CpuLayers(made_layers(), HEADS, EPSILON)
    weights = drawn(5, len(rows), WIDTH)
    tables = [drawn(4, 9, WIDTH).requires_grad_() for _ in range(2)]
    found = layers.look_up(chosen, tables[0])
    expected = functional.embedding(chosen, tables[1])
    for looked_up in (found, expected):
        looked_up.mul(weights).sum().backward()
    assert torch.equal(found, expected)
    assert tables[0].grad is not None
    torch.testing.assert_close(tables[0].grad, tables[1].grad)
