"""A transformer's layer as one function, against its definition."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders.fused_layers import FusedLayers, LayerParameters, text_blocks
from clrelkt.encoders.ragged_layout import TextLayout
from clrelkt.encoders.transformer import TransformerNetwork

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
            assert own._fused.can_run(layout)
        assert torch.equal(alone, vectors)
        (vectors * pull.to(device)).sum().backward()
        grads = [p.grad.flatten().cpu() for p in own.parameters() if p.grad is not None]
        found[device] = vectors.detach().cpu(), torch.cat(grads).double()
    (vectors, grads), (right, right_grads) = found["cuda"], found["cpu"]
    assert functional.cosine_similarity(vectors, right).min() > 0.999
    assert functional.cosine_similarity(grads, right_grads, dim=0) > 0.998
    assert abs(grads.norm() / right_grads.norm() - 1) < 0.02
