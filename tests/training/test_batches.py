from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.training.batches import Batches, evaluation_steps
from clrelkt.training.recipe import Optimisation


def settings(batch: int, batch_tokens: int | None = None) -> Optimisation:
    return Optimisation(epochs=1, learning_rate=1.0, batch=batch, batch_tokens=batch_tokens)


def cut(
    examples: np.ndarray, lengths: np.ndarray, optimisation: Optimisation, seed: int = 0
) -> list[np.ndarray]:
    batches = Batches(examples, 2, lengths, optimisation, np.random.default_rng(seed))
    return [batches[number] for number in range(len(batches))]


def tokens(batch: np.ndarray, lengths: np.ndarray) -> int:
    return sum(int(lengths[text]) for text in np.unique(batch[:, :2]))


@given(st.data())
def test_every_example_once_and_no_batch_over_the_budget(data: st.DataObject) -> None:
    texts = data.draw(st.integers(1, 12))
    lengths = np.array(data.draw(st.lists(st.integers(2, 50), min_size=texts, max_size=texts)))
    text = st.integers(0, texts - 1)
    rows = data.draw(st.lists(st.tuples(text, text, text), max_size=40))
    # A fourth column tells equal examples apart.
    examples = np.array([(*row, n) for n, row in enumerate(rows)], dtype=np.int64).reshape(-1, 4)
    most, budget = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 200))
    batches = cut(examples, lengths, settings(most, budget), data.draw(st.integers(0, 3)))
    numbers = [int(number) for batch in batches for number in batch[:, 3]]
    assert sorted(numbers) == list(range(len(rows)))
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or tokens(batch, lengths) <= budget
    for batch, following in pairwise(batches):
        # A batch is as full as can be: the next example would have gone beyond.
        one_more = np.concatenate([batch, following[:1]])
        assert len(batch) == most or tokens(one_more, lengths) > budget


def test_a_text_counts_once_a_batch_and_only_where_it_is_encoded() -> None:
    lengths = np.array([10, 10, 10, 1000])
    examples = np.array([[0, 1, 3], [0, 2, 3], [1, 2, 3]])
    assert [len(batch) for batch in cut(examples, lengths, settings(9, 30))] == [3]
    assert [len(batch) for batch in cut(examples, lengths, settings(9, 29))] == [1, 1, 1]


def test_by_count_alone_the_last_batch_is_short() -> None:
    examples = np.arange(33).reshape(11, 3)
    batches = cut(examples, np.zeros(33, np.int64), settings(4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    together = np.concatenate(batches)
    assert not np.array_equal(together, examples)
    np.testing.assert_array_equal(together[together[:, 0].argsort()], examples)


def test_the_order_is_the_generators() -> None:
    examples = np.arange(60).reshape(20, 3)
    lengths = np.ones(60, np.int64)
    first, again, other = (
        np.concatenate(cut(examples, lengths, settings(4, 16), seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("budget", [None, 100])
def test_no_examples_make_no_batches(budget: int | None) -> None:
    assert cut(np.empty((0, 3), np.int64), np.array([5]), settings(4, budget)) == []


@pytest.mark.parametrize(
    ("batches", "times", "expected"),
    [
        (8, 4, {2, 4, 6, 8}),
        (10, 4, {3, 5, 8, 10}),
        (3, 4, {1, 2, 3}),
        (1, 4, {1}),
        (7, 1, {7}),
        (0, 4, set()),
    ],
)
def test_evaluation_steps(batches: int, times: int, expected: set[int]) -> None:
    assert evaluation_steps(batches, times) == expected


@given(st.integers(1, 500), st.integers(1, 20))
def test_the_last_batch_of_an_epoch_is_followed_by_an_evaluation(batches: int, times: int) -> None:
    steps = sorted(evaluation_steps(batches, times))
    assert steps[-1] == batches
    assert len(steps) == min(batches, times)
    gaps = np.diff([0, *steps])
    assert gaps.max() - gaps.min() <= 1
