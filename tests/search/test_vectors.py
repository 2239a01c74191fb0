"""Exact search against numpy, and the order of equal scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clrelkt.search.vectors import VectorBlock, exact_search, quantise, similarities


def unit(rng: np.random.Generator, count: int, width: int = 48) -> np.ndarray:
    vectors = rng.standard_normal((count, width), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def blocks_of(vectors: np.ndarray, cuts: list[int], coarse: bool) -> list[VectorBlock]:
    limits = [0, *cuts, len(vectors)]
    parts = [vectors[start:stop] for start, stop in pairwise(limits)]
    return [
        VectorBlock(part.astype(np.float16), *(quantise(part) if coarse else ())) for part in parts
    ]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_the_nearest_are_those_that_numpy_finds(coarse: bool, share: float) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng, 40_000)
    questions = unit(rng, 300)
    allowed = None if share == 1 else rng.random(len(vectors)) < share
    scores = questions @ vectors.astype(np.float16).astype(np.float32).T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    found = exact_search(questions, blocks_of(vectors, [7, 7, 9000], coarse), 10, allowed)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, expected, strict=True)])
    assert recall >= (0.999 if coarse else 0.9999)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, found.rows, 1), atol=1e-6)
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("coarse", [False, True])
def test_fewer_rows_than_asked_for(coarse: bool) -> None:
    vectors = unit(np.random.default_rng(0), 5)
    allowed = np.array([True, False, True, False, False])
    found = exact_search(vectors[:2], blocks_of(vectors, [], coarse), 4, allowed)
    assert found.rows.tolist() == [[0, 2, -1, -1], [*found.rows[1, :2].tolist(), -1, -1]]
    assert next(rows.tolist() for rows, _ in found) == [0, 2]
    empty = exact_search(vectors, blocks_of(vectors[:0], [], coarse), 3)
    assert (empty.rows == -1).all()


@pytest.mark.parametrize("coarse", [False, True])
def test_equal_vectors_stand_in_the_order_of_their_rows(coarse: bool) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng, 20_000)
    vectors[[19_999, 5, 12_345]] = vectors[77]
    found = exact_search(vectors[77:78], blocks_of(vectors, [100], coarse), 4)
    assert found.rows.tolist() == [[5, 77, 12_345, 19_999]]


def test_bytes_are_the_vectors_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate((unit(rng, 50), np.zeros((1, 48), np.float32)))
    integers, scales = quantise(vectors)
    assert np.abs(integers * scales[:, None] - vectors).max() <= scales.max() / 2 + 1e-7
    cosines = similarities(vectors[:3], integers, scales)
    np.testing.assert_allclose(cosines, vectors[:3] @ vectors.T, atol=0.02)
