"""mUSE's hand-written forward and backward pass against a plain one, a text at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from clrelkt.encoders import MuseEncoder, RaggedBatch
from clrelkt.encoders.muse import MuseNetwork
from clrelkt.encoders.muse_forward import TokenLayout
from clrelkt.encoders.muse_whole import WholeLayout
from clrelkt.encoders.row_groups import PART, RowGroups
from clrelkt.errors import EncoderError

VOCABULARY = 11
MakeTensors = Callable[..., dict[str, torch.Tensor]]

WINDOWS = {2: 0, 3: 1, 5: 2}
BLOCK_SIZES = [1, 4, 9, 2048, None]  # None: the whole batch at once, as on a GPU


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
    return last / last.norm()


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
            msg=lambda text, name=name: f"{name}: {text}",
        )


ids_of_texts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), min_size=1, max_size=6
)


@settings(max_examples=20, deadline=None)
@given(texts=ids_of_texts, block_tokens=st.sampled_from(BLOCK_SIZES))
def test_vectors_and_gradients_are_the_plain_networks(
    make_tensors: MakeTensors, texts: list[list[int]], block_tokens: int | None
) -> None:
    assert_same_as_plain(MuseNetwork(make_tensors(VOCABULARY), block_tokens=block_tokens), texts)


@pytest.mark.parametrize("block_tokens", BLOCK_SIZES)
def test_one_token_repeated(make_tensors: MakeTensors, block_tokens: int | None) -> None:
    texts = [[3] * 30, [3], [3, 3], [3, 0, 3]]
    assert_same_as_plain(MuseNetwork(make_tensors(VOCABULARY, 1), block_tokens=block_tokens), texts)


@pytest.mark.parametrize("block_tokens", [16, 2048, None])
def test_published_weights(muse: MuseEncoder, block_tokens: int | None) -> None:
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
        assert torch.equal(gradient, runs[1][name]), name


@pytest.mark.parametrize("block_tokens", [2048, None])
def test_no_texts(make_tensors: MakeTensors, block_tokens: int | None) -> None:
    network = MuseNetwork(make_tensors(VOCABULARY), block_tokens=block_tokens)
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
def test_whole_layout_of_two_texts(tokens: int) -> None:
    """Few tokens of a large vocabulary, and many of a small one."""
    layout = WholeLayout.of(RaggedBatch.from_lists([[7, 5], [7] * (tokens - 2)]), 10)
    assert (layout.distinct is None) == (tokens > 10)
    ids = torch.arange(10) if layout.distinct is None else layout.distinct
    inside = layout.inside.squeeze(1)
    assert ids[layout.slots[inside]].tolist() == [7, 5] + [7] * (tokens - 2)
    assert layout.text_of_row[inside].tolist() == [0, 0] + [1] * (tokens - 2)
    assert inside.tolist()[:8] == [False, False, True, True, False, False, True, tokens > 3]
    assert (layout.slots[~inside] == len(ids)).all()


def test_under_autocast_rows_are_bfloat16_and_gradients_close(muse: MuseEncoder) -> None:
    texts = ["Wo steht das?", "a", "Where does it say that, and where does it not? " * 9, "水"]
    batch = muse.tokenize(texts)
    compact = muse.compact(batch.token_ids)
    tensors = {name: value.detach() for name, value in compact.network.named_parameters()}
    network, batch = MuseNetwork(tensors, block_tokens=None), compact.tokenize(texts)
    found = {}
    for low in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            vectors = network(batch)
        (vectors.float() * torch.linspace(-1, 1, 512)).sum().backward()
        flat = torch.cat([value.grad.flatten() for value in network.parameters()])
        found[low] = vectors.detach().float(), flat
    cosines = functional.cosine_similarity(found[True][0], found[False][0])
    assert 0.999 < cosines.min() < 1 - 1e-7
    assert functional.cosine_similarity(found[True][1], found[False][1], dim=0) > 0.99


def test_what_is_compiled_on_a_gpu_is_whole_and_the_same(
    make_tensors: MakeTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.compile captures it, without the compiler."""
    from clrelkt.encoders import muse_whole

    traced = muse_whole.compiled_row_functions("eager", whole=True)
    monkeypatch.setattr(muse_whole, "_row_functions", lambda slots, training: traced)
    texts = [[3, 1, 2], [4] * 30, [0, 3]]
    for more in ([], [[1] * 90]):
        network = MuseNetwork(make_tensors(VOCABULARY), block_tokens=None)
        assert_same_as_plain(network, [*texts, *more])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("copies", [1, 400])
def test_a_gpu_gives_the_vectors_and_gradients_of_a_cpu(
    muse: MuseEncoder, copies: int, whole: bool
) -> None:
    texts = ["Wo steht das?", "", "Where does it say that, and where not? " * 40, "水"] * copies
    compact = muse.compact(muse.tokenize(texts).token_ids)
    batch = compact.tokenize(texts)
    pull = torch.linspace(-1, 1, 512)
    found = {}
    for device in ("cpu", "cuda"):
        network = copy.deepcopy(compact.network).to(device)
        if whole and device == "cuda":
            network.block_tokens = None
        vectors = network(batch.to(device))
        (vectors * pull.to(device)).mean().backward()
        flat = torch.cat([value.grad.flatten() for value in network.parameters()])
        found[device] = vectors.detach().cpu(), flat.cpu()
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=0, atol=1e-5)
    gradients = [flat for _, flat in found.values()]
    assert functional.cosine_similarity(*gradients, dim=0) > 1 - 1e-6
