from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clrelkt.mining.similarity import on_grid


def unit(seed: int, rows: int, dimension: int) -> torch.Tensor:
    vectors = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, dimension)))
    return torch.nn.functional.normalize(vectors, dim=1).float()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70))
def test_dot_products_do_not_depend_on_order_or_blocks(seed: int, dimension: int) -> None:
    left, right = on_grid(unit(seed, 7, dimension)), on_grid(unit(seed + 1, 9, dimension))
    whole = left @ right.T
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(dimension))
    assert torch.equal(whole, left[:, shuffled] @ right[:, shuffled].T)
    assert torch.equal(whole[3], (left[3] * right).sum(dim=1))
    assert torch.equal(whole[:, 4:5], left @ right[4:5].T)


def test_scores_stay_what_they_are_within_rounding() -> None:
    left, right = unit(0, 50, 512), unit(1, 60, 512)
    exact = left.double() @ right.double().T
    assert torch.max(torch.abs(on_grid(left) @ on_grid(right).T - exact)) < 1e-7


def test_the_vectors_given_are_left_alone() -> None:
    vectors = unit(0, 3, 5).double()
    before = vectors.clone()
    on_grid(vectors)
    assert torch.equal(vectors, before)
