"""mUSE's hand-written forward and backward pass against a plain one, a text at a time."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders import MuseEncoder, RaggedBatch
from clrelkt.encoders.muse.encoder import MuseNetwork
from clrelkt.encoders.muse.forward import TokenLayout
from clrelkt.encoders.muse.fused import FusedLayout, fused_type
from clrelkt.encoders.row_groups import PART, RowGroups
from clrelkt.errors import EncoderError

VOCABULARY = 11
MakeTensors = Callable[..., dict[str, torch.Tensor]]

WINDOWS = {2: 0, 3: 1, 5: 2}
BLOCK_SIZES = [1, 4, 9, 2048]


def plain_vector(tensors: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """Return the vector of one text, as the paper's encoder is described, step by step."""
    embedded = tensors["embedding"][torch.tensor(ids)]
    branches = [embedded]
    for index, (size, left) in enumerate(WINDOWS.items()):
        own = slice(256 * index, 256 * (index + 1))
        branch = functional.layer_norm(
            embedded @ tensors["projection"][:, own] + tensors["projection_bias"][own],
            (256,),
            tensors["branch_gain"][own],
            tensors["branch_bias"][own],
            1e-12,
        )
        for layer in (1, 2):
            padded = functional.pad(branch, (0, 0, left, size - 1 - left))
            kernel = tensors[f"convolution_{layer}_window_{size}"]
            convolved = torch.einsum("tiw,wio->to", padded.unfold(0, size, 1), kernel)
            convolved = convolved + tensors[f"convolution_bias_{layer}"][own]
            branch = torch.relu(convolved) + branch
        branches.append(branch)
    joined = torch.cat(branches, dim=1)
    tokens = functional.layer_norm(
        joined, joined.shape[1:], tensors["token_gain"], tensors["token_bias"], 1e-12
    )
    text = (tokens @ tensors["token_linear"] + tensors["token_linear_bias"]).sum(0) / len(
        ids
    ) ** 0.5
    first = torch.relu(text @ tensors["hidden_0"])
    second = torch.relu(text @ tensors["shortcut_1"] + first @ tensors["hidden_1"])
    third = torch.relu(second @ tensors["hidden_2"])
    last = torch.tanh(second @ tensors["shortcut_3"] + third @ tensors["hidden_3"])
    unit: torch.Tensor = last / last.norm()
    return unit


def gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def assert_same_as_plain(network: MuseNetwork, texts: list[list[int]]) -> None:
    """Compare vectors, and the gradients of a random linear loss, with the plain network's."""
    tensors = {
        name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()
    }
    expected = torch.stack([plain_vector(tensors, ids) for ids in texts])
    pull = torch.randn(
        expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    (expected * pull).sum().backward()
    network.zero_grad()
    vectors = network(RaggedBatch.from_lists(texts))
    (vectors * pull).sum().backward()
    torch.testing.assert_close(vectors, expected, atol=1e-12, rtol=0)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            tensors[name].grad,
            atol=1e-9,
            rtol=0,
            msg=partial("{}: {}".format, name),
        )


ids_of_texts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), min_size=1, max_size=6
)


@settings(max_examples=20, deadline=None)
@given(texts=ids_of_texts, block_tokens=st.sampled_from(BLOCK_SIZES))
def test_vectors_and_gradients_are_the_plain_networks(
    make_tensors: MakeTensors, texts: list[list[int]], block_tokens: int
) -> None:
    assert_same_as_plain(MuseNetwork(make_tensors(VOCABULARY), block_tokens=block_tokens), texts)


@pytest.mark.parametrize("block_tokens", BLOCK_SIZES)
def test_one_token_repeated(make_tensors: MakeTensors, block_tokens: int) -> None:
    texts = [[3] * 30, [3], [3, 3], [3, 0, 3]]
    assert_same_as_plain(MuseNetwork(make_tensors(VOCABULARY, 1), block_tokens=block_tokens), texts)


@pytest.mark.parametrize("block_tokens", [16, 2048])
def test_published_weights(muse: MuseEncoder, block_tokens: int) -> None:
    texts = ["Wo steht das?", "", "a", "Where does it say that, and where does it not?", "水水水"]
    batch = muse.tokenize(texts)
    compact = muse.compact(batch.token_ids)
    tensors = {name: value.detach() for name, value in compact.network.named_parameters()}
    network = MuseNetwork(tensors, block_tokens=block_tokens).double()
    assert_same_as_plain(network, compact.tokenizer(texts))


def test_gradients_have_the_same_bits_every_time(muse: MuseEncoder) -> None:
    texts = ["the cat and the dog and the cat and the bird " * 40, "", "the cat"] * 8
    batch = muse.tokenize(texts)
    compact = muse.compact(batch.token_ids)
    batch = compact.tokenize(texts)
    pull = torch.randn(len(texts), 512, generator=torch.Generator().manual_seed(0))
    runs = []
    for _ in range(2):
        compact.zero_grad()
        (compact(batch) * pull).sum().backward()
        runs.append({name: value.grad for name, value in compact.named_parameters()})
    for name, gradient in runs[0].items():
        assert gradient is not None
        assert gradient.abs().sum() > 0
        again = runs[1][name]
        assert again is not None
        assert torch.equal(gradient, again), name


def test_no_texts(make_tensors: MakeTensors) -> None:
    network = MuseNetwork(make_tensors(VOCABULARY))
    vectors = network(RaggedBatch.from_lists([]))
    assert vectors.shape == (0, 5)
    vectors.sum().backward()
    assert network.embedding.grad is not None
    assert not network.embedding.grad.any()


def test_blocks_are_runs_of_whole_texts() -> None:
    batch = RaggedBatch.from_lists([[1] * 3, [2] * 3, [3] * 9, [4]])
    assert TokenLayout.of(batch, 6).blocks == (slice(0, 2), slice(2, 3), slice(3, 4))
    assert TokenLayout.of(batch).blocks == (slice(0, 4),)


def test_layout_of_two_texts() -> None:
    layout = TokenLayout.of(RaggedBatch.from_lists([[7, 5], [7]]))
    assert layout.distinct.tolist() == [5, 7]
    # Two gap rows (slot 2) before, between and behind the texts.
    assert layout.slot_of_row.tolist() == [2, 2, 1, 0, 2, 2, 1, 2, 2]
    assert layout.first_row.tolist() == [2, 6]
    assert layout.by_slot.members.tolist() == [3, 2, 6]
    assert layout.by_slot.parts.tolist() == [0, 1]
    assert layout.by_slot.groups is None


def test_missing_tensor_is_named(make_tensors: MakeTensors) -> None:
    tensors = make_tensors(VOCABULARY)
    del tensors["hidden_2"]
    with pytest.raises(EncoderError, match="hidden_2 missing"):
        MuseNetwork(tensors)


def test_unknown_tensor_is_named(make_tensors: MakeTensors) -> None:
    with pytest.raises(EncoderError, match="pooler unknown"):
        MuseNetwork(make_tensors(VOCABULARY) | {"pooler": torch.zeros(1)})


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("projection", (7, 768), "(6, 768)"),
        ("token_gain", (768,), "(774,)"),
        ("hidden_3", (9, 6), "(9, 5)"),
        ("convolution_1_window_5", (3, 256, 256), "(5, 256, 256)"),
    ],
)
def test_tensor_of_another_shape_is_named(
    make_tensors: MakeTensors, name: str, shape: tuple[int, ...], expected: str
) -> None:
    tensors = make_tensors(VOCABULARY) | {name: torch.zeros(shape, dtype=torch.float64)}
    with pytest.raises(EncoderError) as caught:
        MuseNetwork(tensors)
    assert f"{name} has shape {shape}, expected {expected}" in str(caught.value)


def test_tensors_of_several_kinds_are_refused(make_tensors: MakeTensors) -> None:
    tensors = make_tensors(VOCABULARY)
    tensors["hidden_0"] = tensors["hidden_0"].half()
    with pytest.raises(EncoderError, match=r"torch\.float16, torch\.float64"):
        MuseNetwork(tensors)


@pytest.mark.parametrize("distinct", [1, 7, 400])
def test_groups_of_any_size_are_summed(distinct: int) -> None:
    generator = torch.Generator().manual_seed(distinct)
    counts = torch.randint(0, 3 * PART, (distinct,), generator=generator)
    counts[-1] = 0
    members = torch.randint(0, 50, (int(counts.sum()),), generator=generator)
    table = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(len(members), generator=generator, dtype=torch.float64)
    groups = RowGroups.of(members, counts)
    for factors in (None, weights):
        rows = table[members] if factors is None else table[members] * factors[:, None]
        expected = torch.stack([part.sum(0) for part in rows.split(counts.tolist())])
        torch.testing.assert_close(groups.sum(table, weights=factors), expected)


def test_sums_in_two_steps_change_nothing(
    make_tensors: MakeTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: one block, and no token's or text's rows all in one sum."""
    batch = RaggedBatch.from_lists([[1, 2, 1, 3] * PART, [5], [1], [4, 1]])
    plain = TokenLayout.of(batch, batch.tokens)
    counts = torch.bincount(batch.token_ids)
    two_steps = replace(
        plain,
        by_slot=RowGroups.of(plain.by_slot.members, counts[counts > 0]),
        by_text=RowGroups.of(plain.token_rows, batch.lengths),
    )
    found = []
    for layout in (plain, two_steps):
        with monkeypatch.context() as patched:
            patched.setattr(TokenLayout, "of", lambda *_, chosen=layout: chosen)
            network = MuseNetwork(make_tensors(VOCABULARY), block_tokens=batch.tokens)
            vectors = network(batch)
        (vectors.sum(0) * torch.arange(vectors.shape[1])).sum().backward()
        found.append([vectors, *(parameter.grad for parameter in network.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("gradients", [False, True])
def test_fused_layout_of_two_texts(tokens: int, gradients: bool) -> None:
    """Few tokens of a large vocabulary, and many of a small one."""
    texts = [[7, 5], [7] * (tokens - 2)]
    with torch.set_grad_enabled(gradients):
        layout = FusedLayout.of(RaggedBatch.from_lists(texts), 10)
    assert (layout.distinct is None) == (tokens > 10)
    ids = torch.arange(10) if layout.distinct is None else layout.distinct
    inside = layout.slots < len(ids)
    assert ids[layout.slots[inside].long()].tolist() == [token for text in texts for token in text]
    assert layout.text_of_row[inside].tolist() == [0, 0] + [1] * (tokens - 2)
    assert inside.tolist()[:8] == [False, False, True, True, False, False, True, tokens > 3]
    assert (layout.slots[~inside] == len(ids)).all()
    assert layout.first_row.tolist() == [2, 6]


@pytest.mark.skipif(find_spec("triton") is None, reason="pip install 'clrelkt[gpu]'")
def test_the_kernels_give_the_same_sums_and_gradients(
    make_tensors: MakeTensors, tmp_path: Path
) -> None:
    """By Triton's interpreter, which knows no bfloat16 products: float32 and float16."""
    torch.save(make_tensors(VOCABULARY), tmp_path / "tensors.pt")
    script = Path(__file__).with_name("interpreted_muse.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path / "tensors.pt")],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "as expected\n"), done.stderr


@pytest.mark.parametrize("precision", ["bfloat16", "high"])
def test_a_cpu_has_no_kernels(make_tensors: MakeTensors, precision: str) -> None:
    table = make_tensors(VOCABULARY)["embedding"].float()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        assert fused_type(table) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("precision", "vectors", "gradients"),
    [("float32", 1 - 1e-6, 1 - 1e-6), ("tf32", 0.99999, 0.9999), ("bfloat16", 0.999, 0.99)],
)
@pytest.mark.parametrize("copies", [1, 400])
def test_a_gpu_gives_the_vectors_and_gradients_of_a_cpu(
    muse: MuseEncoder, copies: int, precision: str, vectors: float, gradients: float
) -> None:
    texts = ["Wo steht das?", "", "Where does it say that, and where not? " * 40, "水"] * copies
    # Few tokens of a large vocabulary, or many of a small one.
    encoder = muse.compact(muse.tokenize(texts).token_ids) if copies > 1 else muse
    batch = encoder.tokenize(texts)
    pull = torch.linspace(-1, 1, 512)
    found = {}
    before = torch.get_float32_matmul_precision()
    for device in ("cpu", "cuda"):
        network = copy.deepcopy(encoder.network).to(device)
        low = precision == "bfloat16" and device == "cuda"
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        try:
            with torch.autocast(device, torch.bfloat16, enabled=low):
                kind = fused_type(network.embedding)
                unit = network(batch.to(device)).float()
                with torch.no_grad():
                    alone = network(batch.to(device)).float()
            (unit * pull.to(device)).mean().backward()
        finally:
            torch.set_float32_matmul_precision(before)
        if device == "cuda" and find_spec("triton") is not None:
            assert (kind is None) == (precision == "float32")
        flat = torch.cat([gradient_of(value).flatten() for value in network.parameters()])
        found[device] = unit.detach().cpu(), alone.cpu(), flat.double().cpu()
    unit, alone, flat = found["cuda"]
    right, _, right_flat = found["cpu"]
    assert functional.cosine_similarity(unit, right).min() > vectors
    assert functional.cosine_similarity(alone, right).min() > vectors
    assert functional.cosine_similarity(flat, right_flat, dim=0) > gradients
    assert abs(flat.norm() / right_flat.norm() - 1) < 2 * (1 - gradients) + 1e-3
