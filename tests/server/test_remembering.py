"""Vectors of questions that were asked lately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clrelkt.server.remembering import RememberedVectors


class Lengths:
    """A text's vector is its length."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def test_each_question_is_encoded_once() -> None:
    encode = Lengths()
    vectors = RememberedVectors(encode, 10)
    assert vectors(["a", "bb", "a"]).tolist() == [[1], [2], [1]]
    assert vectors(["ccc", "bb"]).tolist() == [[3], [2]]
    assert vectors(["a"]).tolist() == [[1]]
    assert encode.asked == [["a", "bb"], ["ccc"]]
    assert (vectors.encoded, vectors.found) == (3, 3)


def test_the_latest_are_kept() -> None:
    encode = Lengths()
    vectors = RememberedVectors(encode, 2)
    vectors(["a", "bb"])
    vectors(["a"])
    vectors(["ccc"])  # "bb" was asked longest ago.
    encode.asked.clear()
    assert vectors(["a", "ccc", "bb"]).tolist() == [[1], [3], [2]]
    assert encode.asked == [["bb"]]


@pytest.mark.parametrize("size", [0, 1])
def test_a_batch_may_be_larger_than_what_is_kept(size: int) -> None:
    vectors = RememberedVectors(Lengths(), size)
    for _ in range(2):
        assert vectors(["a", "bb", "ccc", "bb"]).tolist() == [[1], [2], [3], [2]]
