from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clrelkt.encoders import MuseEncoder, RaggedBatch, devices
from clrelkt.encoders.devices import MultiDeviceEncoder, each_device
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.streaming import tokenized_ahead
from clrelkt.errors import EncoderError, SettingsError

TEXTS = ["the cat", "", "a dog ran after the cat", "the mat " * 9, "sat"] * 8


def test_blocks_change_no_vector(
    small_encoder: MuseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        expected = small_encoder(small_encoder.tokenize(TEXTS)).numpy()
    for characters in (1, 30, 10**6):
        monkeypatch.setattr("clrelkt.encoders.muse.encoder._BLOCK_CHARACTERS", characters)
        np.testing.assert_allclose(small_encoder.encode(TEXTS), expected, atol=1e-6)
    assert small_encoder.encode([]).shape == (0, 5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 200), st.booleans())
def test_blocks_hold_every_text_once_and_rise(lengths: list[int], most: int, rising: bool) -> None:
    def tokenize(texts: Sequence[str], /, *, threads: int | None = None) -> RaggedBatch:
        return RaggedBatch.from_lists([[len(text)] for text in texts])

    texts = ["x" * length for length in lengths]
    found = list(tokenized_ahead(tokenize, texts, most, rising=rising))
    assert [token for _, batch in found for token in batch.token_ids.tolist()] == lengths
    at = 0
    size = max(1, most // 8) if rising else most
    for number, (start, batch) in enumerate(found):
        assert start == at
        at += len(batch)
        held = sum(lengths[start:at])
        # Without its last text a block would be too small, unless nothing follows.
        assert held - lengths[at - 1] < size
        assert held >= size or number == len(found) - 1
        size = min(2 * size, most)


@pytest.mark.parametrize("characters", [30, 10**6])
def test_a_text_that_cannot_be_tokenised_is_told_of(
    small_encoder: MuseEncoder, monkeypatch: pytest.MonkeyPatch, characters: int
) -> None:
    monkeypatch.setattr("clrelkt.encoders.muse.encoder._BLOCK_CHARACTERS", characters)
    with pytest.raises(EncoderError, match="half of a surrogate pair"):
        small_encoder.encode([*TEXTS, "ab\ud83d", *TEXTS])


@pytest.mark.parametrize("copies", [1, 3])
def test_several_devices_make_the_same_vectors(
    small_encoder: MuseEncoder, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_LEAST_CHARACTERS", 1)
    several = MultiDeviceEncoder(small_encoder, ["cpu"] * copies)
    np.testing.assert_allclose(several.encode(TEXTS), small_encoder.encode(TEXTS), atol=1e-6)
    assert several.encode([]).shape == (0, 5)
    assert (several.name, several.dimension) == (small_encoder.name, 5)
    assert len(each_device(several)) == copies
    for own in each_device(several):
        np.testing.assert_array_equal(own.encode(TEXTS), small_encoder.encode(TEXTS))
    assert several.tokenize(TEXTS).tokens == small_encoder.tokenize(TEXTS).tokens
    with pytest.raises(EncoderError, match="half of a surrogate pair"):
        several.encode([*TEXTS, "\ud83d"])


@given(
    st.lists(st.integers(0, 90), max_size=200),
    st.integers(1, 5),
    st.integers(1, 5_000),
    st.integers(1, 500),
)
def test_pieces_hold_every_text_once_and_none_is_too_large(
    lengths: list[int], workers: int, most: int, least: int
) -> None:
    texts = ["a" * length for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_LEAST_CHARACTERS", least)
        pieces = devices._pieces(texts, workers, most)
    assert [place for piece in pieces for place in range(len(texts))[piece]] == list(
        range(len(texts))
    )
    # A text counts for one more, so that empty ones count too.
    sizes = [sum(lengths[piece]) + piece.stop - piece.start for piece in pieces]
    assert all(size <= most + max(lengths) + 1 for size in sizes)
    shared = max(1, min(workers, sum(sizes) // least))
    assert all(size <= sum(sizes) / shared + max(lengths) + 1 for size in sizes)


def test_no_device(small_encoder: MuseEncoder) -> None:
    with pytest.raises(SettingsError, match="name at least one"):
        MultiDeviceEncoder(small_encoder, [])


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 40), st.integers(9, 40))
def test_a_budget_that_is_too_large_is_halved_and_every_text_comes_once(
    lengths: list[int], budget: int, memory: int
) -> None:
    batch = RaggedBatch.from_lists([[place] * length for place, length in enumerate(lengths)])

    def first_ids(part: RaggedBatch) -> torch.Tensor:
        if part.tokens > memory:
            raise torch.OutOfMemoryError
        return part.token_ids[part.lengths.cumsum(0) - part.lengths]

    found = list(TokenBudget(budget).encode(batch, first_ids))
    assert [place for run, _ in found for place in range(run.start, run.stop)] == list(
        range(len(lengths))
    )
    ids = [number for _, part in found for number in part.tolist()]
    assert ids == list(range(len(lengths)))
