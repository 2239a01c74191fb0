"""A transformer's layer as one function, against its definition."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders.transformer import fused_layers
from clrelkt.encoders.transformer.encoder import TransformerNetwork
from clrelkt.encoders.transformer.fused_layers import FusedLayers
from clrelkt.encoders.transformer.layer_graphs import rounded
from clrelkt.encoders.transformer.layer_rooms import LayerParameters
from clrelkt.encoders.transformer.layout import TextLayout
from clrelkt.encoders.transformer.text_blocks import SpanTable, TextBlocks, text_blocks

transformers = pytest.importorskip("transformers")


@pytest.mark.skipif(find_spec("triton") is None, reason="pip install 'clrelkt[gpu]'")
def test_the_kernels_give_the_layer_and_its_gradients() -> None:
    """By Triton's interpreter, which knows no bfloat16 products: float32 and float16."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("interpreted_layers.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "as expected\n"), done.stderr


def test_blocks_by_hand() -> None:
    assert text_blocks((3, 5, 1, 20, 2, 8, 1), 8) == [0, 8, 9, 17, 25, 29, 31, 39, 40]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 16))
def test_blocks_hold_every_token_once_and_long_texts_alone(lengths: list[int], most: int) -> None:
    firsts = text_blocks(lengths, most)
    assert firsts[0] == 0
    assert firsts[-1] == sum(lengths)
    assert all(0 < after - before <= most for before, after in pairwise(firsts))
    row = 0
    for length in lengths:
        inside = [first for first in firsts if row <= first < row + length]
        # A long text shares no block; a short one is never cut.
        whole = list(range(row, row + length, most)) if length > most else [row][: len(inside)]
        assert inside == whole
        row += length


def test_whole_texts_and_parts_by_hand() -> None:
    found = TextBlocks.of((3, 5, 1, 20, 2, 8, 1, 24, 25), 8, 24)
    wholes = [(0, 8), (8, 9), (9, 29), (29, 31), (31, 39), (39, 40), (40, 64)]
    assert found.wholes == wholes
    assert found.parts == [(64, 72), (72, 80), (80, 88), (88, 89)]
    assert found.firsts[-1] == 89
    cut = TextBlocks.of((3, 5, 9), 8, 0)
    assert cut == ([0, 8, 16, 17], [], [(0, 8), (8, 16), (16, 17)])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 16))
def test_each_token_is_in_a_whole_or_a_part(lengths: list[int], most: int) -> None:
    firsts, wholes, parts = TextBlocks.of(lengths, most, 3 * most)
    rows = sorted(row for first, stop in [*wholes, *parts] for row in range(first, stop))
    assert rows == list(range(sum(lengths)))
    edges = {0, *accumulate(lengths)}
    assert all({first, stop} <= edges and stop - first <= 3 * most for first, stop in wholes)
    # A table that is rounded up has as many of either as of blocks.
    assert max(len(wholes), len(parts)) <= len(firsts) - 1
    several = [(first, stop) for first, stop in wholes if edges & set(range(first + 1, stop))]
    assert all(stop - first <= most for first, stop in several)


def small_network(kind: str, **changes: object) -> TransformerNetwork:
    sizes = {
        "vocab_size": 500,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 514,
    }
    config = getattr(transformers, f"{kind}Config")(**(sizes | changes))
    torch.manual_seed(0)
    return TransformerNetwork(getattr(transformers, f"{kind}Model")(config), ["mean"])


def test_every_parameter_of_a_layer_is_one_of_it() -> None:
    network = small_network("XLMRoberta")
    layers = FusedLayers.of(network.model)
    assert layers is not None
    own = [part for layer in layers._parameters for part in layer]
    expected = {id(part) for part in network.model.encoder.parameters()}
    assert {id(part) for part in own} == expected
    assert len(own) == len(expected) == 3 * len(LayerParameters._fields)
    copied = copy.deepcopy(network)
    assert copied._fused is not None
    inside = {id(part) for part in copied.parameters()}
    assert all(id(part) in inside for layer in copied._fused._parameters for part in layer)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("XLMRoberta", {"hidden_act": "relu"}),
        ("Bert", {"hidden_size": 160}),
        ("Bert", {"intermediate_size": 500}),
    ],
)
def test_layers_of_another_form_are_left_alone(kind: str, changes: dict[str, object]) -> None:
    assert small_network(kind, **changes)._fused is None


def test_a_cpu_has_no_kernels() -> None:
    layers = FusedLayers.of(small_network("Bert").model)
    assert layers is not None
    assert not layers.can_run(TextLayout(torch.tensor([3]), (3,)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["XLMRoberta", "Bert"])
def test_a_gpu_gives_the_vectors_and_gradients_of_a_cpu(kind: str) -> None:
    network = small_network(kind)
    lengths = [*range(1, 200, 7), 300, 64, 65, 5, 5]
    ids = torch.randint(5, 500, (sum(lengths),))
    batch = RaggedBatch(ids, torch.tensor(lengths))
    pull = torch.linspace(-1, 1, 128)
    found = {}
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(network).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            vectors = own(batch.to(device))
            with torch.no_grad():
                alone = own(batch.to(device))
        if device == "cuda":
            layout = TextLayout(batch.lengths.cuda(), tuple(lengths))
            assert own._fused is not None
            assert own._fused.can_run(layout)
        assert torch.equal(alone, vectors)
        (vectors * pull.to(device)).sum().backward()
        parts = [p.grad.flatten().cpu() for p in own.parameters() if p.grad is not None]
        found[device] = vectors.detach().cpu(), torch.cat(parts).double()
    (vectors, grads), (right, right_grads) = found["cuda"], found["cpu"]
    assert functional.cosine_similarity(vectors, right).min() > 0.999
    assert functional.cosine_similarity(grads, right_grads, dim=0) > 0.998
    assert abs(grads.norm() / right_grads.norm() - 1) < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_product_ends_with_the_gelu_on_a_gpu_and_in_a_graph() -> None:
    from clrelkt.encoders.transformer import product_kernels as kernels

    products, (rows, depth, columns) = kernels.GELU_PRODUCTS, (9001, 128, 512)
    drawn = functools.partial(torch.randn, device="cuda", dtype=torch.bfloat16)
    states, grad, bias = drawn(rows, depth), drawn(rows, depth), drawn(columns)
    weight, outer = drawn(columns, depth) * depth**-0.5, drawn(depth, columns) * depth**-0.5
    if not products.suit(states, columns):
        pytest.skip("needs a GPU of the kind that the kernels are made for")
    sums = states.new_empty((products.blocks(rows) * 3 - 1, columns + 4), dtype=torch.float32)

    def work() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sums.fill_(float("nan"))
        inner, slopes = kernels.gelu_product(states, weight, bias, products.forward, keep=True)
        assert slopes is not None
        back = kernels.gelu_product_backward(grad, outer, slopes, sums[:, 4:], products.backward)
        return inner, back, sums[:, 4:].sum(0)

    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = work()
    for _ in range(2):
        states.normal_()
        grad.normal_()
        graph.replay()
        before = functional.linear(states.double(), weight.double(), bias.double())
        expected = functional.gelu(before.requires_grad_())
        expected.backward(grad.double() @ outer.double())
        assert before.grad is not None
        wanted = expected, before.grad, before.grad.sum(0)
        for found, right, direct in zip(recorded, wanted, work(), strict=True):
            assert torch.equal(found, direct)
            assert (found - right).norm() < 5e-3 * right.norm()


def random_batch(tokens: int) -> RaggedBatch:
    """Return texts of 1 to 90 tokens, about ``tokens`` together."""
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(torch.randint(1, 90, ())))
    return RaggedBatch(torch.randint(5, 500, (sum(lengths),)), torch.tensor(lengths))


@given(st.integers(1, 10**6), st.sampled_from([4, 16]), st.sampled_from([1, 64]))
def test_sizes_to_record_are_few_and_little_larger(number: int, sizes: int, least: int) -> None:
    found = rounded(number, sizes, least)
    assert number <= found < number + max(least, number * 2 / sizes)
    assert found % least == 0
    assert rounded(found, sizes, least) == found


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 5))
def test_a_table_of_spans_says_where_texts_lie(lengths: list[int], empty: int) -> None:
    blocks = TextBlocks.of(lengths, 16, 32)
    firsts, wholes, parts = blocks
    table = SpanTable(
        sum(lengths), len(firsts) - 1 + empty, len(wholes) + 2 * empty, len(parts) + empty
    )
    spans = table.spans(table.made(lengths, blocks))
    row = 0
    for length in lengths:
        assert set(spans.starts[row : row + length].tolist()) == {row}
        assert set(spans.ends[row : row + length].tolist()) == {row + length}
        row += length
    assert spans.blocks.tolist() == [*firsts, *[row] * empty]
    assert spans.wholes.tolist() == [*map(list, wholes), *[[row, row]] * 2 * empty]
    assert spans.parts.tolist() == [*map(list, parts), *[[row, row]] * empty]
    # A block of no tokens looks behind the last one, and must find no text there.
    assert spans.starts[row] == row


def recordings_of(network: TransformerNetwork) -> int:
    assert network._fused is not None
    recordings = network._fused._room.recordings
    assert recordings is not None
    return len(recordings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_layers_on_a_gpu_do_what_plain_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("XLMRoberta", num_hidden_layers=6).cuda()
    plain = copy.deepcopy(network)
    torch.manual_seed(0)
    for tokens in (1000, 1000, 400, 980, 990, 400, 1010, 30, 30, 2000, 2000, 900):
        batches = [random_batch(tokens).to("cuda") for _ in range(2)]
        found = {}
        for own in (network, plain):
            own.zero_grad()
            with (
                monkeypatch.context() as patch,
                torch.autocast("cuda", torch.bfloat16),
            ):
                if own is plain:
                    patch.setattr(fused_layers, "_RECORDED_PRODUCTS", 0)
                # Two go ahead before they come back; one more adds to their gradients.
                first, second = own(batches[0]), own(batches[1])
                (first.square().amax(1).sum() + second[:, :64].sum()).backward()
                third = own(batches[0])
                third[:, :64].sum().backward()
            found[own] = torch.cat([first, second, third]).detach()
        assert functional.cosine_similarity(found[network], found[plain]).min() > 0.999
        grads, right = (
            torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
            for own in (network, plain)
        )
        assert functional.cosine_similarity(grads, right, dim=0) > 0.995
        assert abs(grads.norm() / right.norm() - 1) < 0.02
        with torch.no_grad():
            for mine, other in zip(network.parameters(), plain.parameters(), strict=True):
                if mine.grad is not None:
                    assert other.grad is not None
                    step = other.grad / right.norm()
                    mine.sub_(step)
                    other.sub_(step)
    assert 2 < recordings_of(network) < 12
    assert recordings_of(plain) == 0
