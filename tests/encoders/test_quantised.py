from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clrelkt.encoders.quantised import quantise_columns, quantise_rows
from clrelkt.errors import EncoderError


def test_codes_by_hand() -> None:
    # Levels of 4 bits: -7 to 7. The scales are 7 / 7 = 1 and 14 / 7 = 2.
    numbers = torch.tensor([[7.0, -7.0, 0.4], [14.0, 3.2, -5.0]])
    quantised = quantise_rows(numbers, 4)
    assert quantised.scales.tolist() == [1.0, 2.0]
    # Codes 7 -7 0 and 7 2 -2 (ties go to even), each with 7 added, four bits each, then zeros.
    assert quantised.codes.tolist() == [[0xE0, 0x70], [0xE9, 0x50]]
    assert quantised.restored().tolist() == [[7.0, -7.0, 0.0], [14.0, 4.0, -4.0]]


def test_columns_have_a_scale_each() -> None:
    numbers = torch.tensor([[[127.0, 1.0]], [[-63.5, 0.5]]])
    quantised = quantise_columns(numbers, 8)
    assert quantised.scales.tolist() == pytest.approx([1.0, 1 / 127])
    assert quantised.codes.tolist() == [[254, 254], [63, 191]]
    restored = quantised.restored()
    assert restored.shape == (2, 1, 2)
    assert restored[0, 0].tolist() == pytest.approx([127.0, 1.0])


@given(
    numbers=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=11),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    bits=st.integers(2, 8),
)
def test_no_number_moves_further_than_half_a_scale(numbers: np.ndarray, bits: int) -> None:
    given_numbers = torch.from_numpy(numbers)
    for quantise, axis in ((quantise_rows, 1), (quantise_columns, 0)):
        quantised = quantise(given_numbers, bits)
        assert quantised.codes.shape == (numbers.shape[0], -(-numbers.shape[1] * bits // 8))
        scale = np.abs(numbers).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
        error = np.abs(quantised.restored().numpy() - numbers)
        # Numbers below the least normal one of float32 become 0.
        assert (error <= scale * 0.500_01 + np.abs(numbers) * 1e-6 + 1e-38).all()


def test_parts_that_do_not_fit_are_refused() -> None:
    quantised = quantise_rows(torch.ones(3, 4), 6)
    for change in (
        {"codes": quantised.codes[:2]},
        {"scales": quantised.scales[:2]},
        {"shape": (3, 5)},
    ):
        with pytest.raises(EncoderError, match="quantised numbers of shape"):
            dataclasses.replace(quantised, **change).restored()


def test_no_rows_at_all() -> None:
    assert quantise_rows(torch.empty(0, 5), 6).restored().shape == (0, 5)


@pytest.mark.parametrize("bits", [1, 9])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 8 expected"):
        quantise_rows(torch.ones(1, 1), bits)
