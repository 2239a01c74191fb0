from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from clrelkt.evaluation import gold_ranks, hit_rate, reciprocal_rank


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30))
def test_metrics_agree_with_trec_eval(seed: int, questions: int, candidates: int) -> None:
    rng = np.random.default_rng(seed)
    # Distinct scores: trec_eval breaks ties by name.
    scores = np.array([rng.permutation(candidates) for _ in range(questions)], dtype=np.float32)
    gold = rng.integers(0, candidates, questions)
    run = {
        f"q{q}": {
            f"d{d}": float(scores[q, d])
            for d in range(candidates)
            if scores[q, d] >= candidates - 10
        }
        for q in range(questions)
    }
    truth = {f"q{q}": {f"d{gold[q]}": 1} for q in range(questions)}
    judged = pytrec_eval.RelevanceEvaluator(truth, {"success", "recip_rank"}).evaluate(run)
    ranks = gold_ranks(scores, gold)
    for k in (1, 5, 10):
        expected = np.mean([row[f"success_{k}"] for row in judged.values()])
        assert hit_rate(ranks, k) == pytest.approx(expected)
    expected = np.mean([row["recip_rank"] for row in judged.values()])
    assert reciprocal_rank(ranks, 10) == pytest.approx(expected)


def test_equal_scores_rank_the_gold_last() -> None:
    scores = np.array([[0.5, 0.5, 0.9, 0.5, 0.1]] * 3)
    assert gold_ranks(scores, np.array([0, 2, 4])).tolist() == [4, 1, 5]


def test_scores_that_are_no_numbers_are_no_hits() -> None:
    scores = np.array([[np.nan, 0.2, 0.1], [0.3, np.nan, 0.1], [np.nan] * 3])
    assert gold_ranks(scores, np.array([0, 0, 1])).tolist() == [3, 2, 3]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ranks_do_not_change_with_the_order_of_candidates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (6, 9)).astype(np.float32)
    gold = rng.integers(0, 9, 6)
    order = rng.permutation(9)
    place = np.argsort(order)
    assert np.array_equal(gold_ranks(scores, gold), gold_ranks(scores[:, order], place[gold]))


def test_reciprocal_rank_is_cut_off() -> None:
    assert reciprocal_rank(np.array([1, 2, 10, 11])) == pytest.approx((1 + 0.5 + 0.1) / 4)
    assert hit_rate(np.array([1, 5, 6, 11]), 5) == 0.5
