"""From logits to spans: against every span there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.reader.spans import WindowScores, answer_spans, best_null_score
from clrelkt.reader.windows import Window

CONTEXT = "aa bb cc dd ee ff"
OFFSETS = [(0, 2), (3, 5), (6, 8), (9, 11), (12, 14), (15, 17)]


def window(first: int, last: int) -> Window:
    """A window that holds the context's words from ``first`` up to, not with, ``last``."""
    inside = OFFSETS[first:last]
    offsets = [(0, 0), (0, 2), (0, 0), *inside, (0, 0)]
    return Window(0, {"input_ids": [0] * len(offsets)}, offsets, (3, 3 + len(inside)), 0)


def scores(first: int, last: int, starts: list[float], ends: list[float]) -> WindowScores:
    edge = [0.0, 90.0, 90.0]  # Whatever the question's own tokens score, they are no answer.
    return WindowScores(
        window(first, last),
        np.array([*edge, *starts, 90.0]),
        np.array([*edge, *ends, 90.0]),
    )


LOGITS = st.lists(st.integers(-20, 20), min_size=6, max_size=6)


@given(LOGITS, LOGITS, st.integers(1, 7), st.integers(1, 25))
def test_every_span_is_looked_at(
    starts: list[int], ends: list[int], max_tokens: int, n_best: int
) -> None:
    # Distinct sums, so that the order is known.
    low = np.array(starts) + np.arange(6) * 1e-3
    high = np.array(ends) + np.arange(6) * 1e-2
    expected = sorted(
        (
            (-(low[i] + high[j]), OFFSETS[i][0], OFFSETS[j][1])
            for i in range(6)
            for j in range(i, min(6, i + max_tokens))
        ),
    )[:n_best]
    found = answer_spans(
        CONTEXT, [scores(0, 6, list(low), list(high))], n_best=n_best, max_tokens=max_tokens
    )
    near: list[Any] = [(pytest.approx(score), start, end) for score, start, end in expected]
    assert [(-s.score, s.start, s.end) for s in found] == near
    assert all(CONTEXT[s.start : s.end] == s.text for s in found)


def test_what_two_windows_share_has_the_higher_score() -> None:
    first = scores(0, 4, [0, 0, 1, 0], [0, 0, 1, 0])
    second = scores(2, 6, [5, 0, 0, 0], [5, 0, 0, 0])
    found = answer_spans(CONTEXT, [first, second], n_best=3, max_tokens=1)
    assert [(s.text, s.score) for s in found] == [("cc", 10.0), ("aa", 0.0), ("bb", 0.0)]


def test_probabilities_are_the_softmax_with_no_answer() -> None:
    found = answer_spans(
        CONTEXT, [scores(0, 6, [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0])], n_best=2, max_tokens=1
    )
    # Spans score 2 and 0, "no answer" 0.
    assert found[0].probability == pytest.approx(np.exp(2) / (np.exp(2) + 2))
    assert found[1].probability == pytest.approx(1 / (np.exp(2) + 2))


def test_one_window_is_enough_to_say_that_there_is_an_answer() -> None:
    low, high = scores(0, 3, [0] * 3, [0] * 3), scores(3, 6, [0] * 3, [0] * 3)
    high.starts[0] = 7
    low.starts[0] = -3
    assert best_null_score([low, high]) == -3
    assert best_null_score([high]) == 7


def test_white_space_around_a_span_is_no_part_of_it() -> None:
    offsets = [(0, 0), (0, 0), (0, 3), (3, 7)]
    spaced = Window(0, {"input_ids": [0] * 4}, offsets, (2, 4), 0)
    logits = np.array([0.0, 0, 0, 9])
    found = answer_spans("ab  cd ", [WindowScores(spaced, logits, logits)], n_best=1, max_tokens=1)
    assert [(s.start, s.end, s.text) for s in found] == [(4, 6, "cd")]
