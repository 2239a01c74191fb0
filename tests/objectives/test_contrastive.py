from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from clrelkt.objectives import (
    anchor_loss,
    distribution_loss,
    paired_loss,
    ranking_loss,
    reverse_ranking_loss,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def minus_log_share(scores: list[float], gold: int) -> float:
    return -math.log(math.exp(scores[gold]) / sum(map(math.exp, scores)))


def test_ranking_loss_by_hand() -> None:
    questions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    loss = ranking_loss(questions, candidates, torch.tensor([0, 1]), temperature=0.5)
    first = minus_log_share([2.0, 0.0, 1.6], 0)
    second = minus_log_share([1.2, 1.6, 1.92], 1)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_a_document_scores_as_its_best_passage() -> None:
    questions = torch.tensor([[1.0, 0.0]])
    candidates = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])
    loss = ranking_loss(
        questions,
        candidates,
        torch.tensor([0]),
        temperature=1.0,
        document_of=torch.tensor([0, 0, 1]),
    )
    assert loss.item() == pytest.approx(minus_log_share([1.0, 0.0], 0), abs=1e-6)


def test_excluded_candidates_are_no_negatives() -> None:
    questions, candidates = unit(2, 8), unit(4, 8, seed=1)
    gold = torch.tensor([0, 2])
    excluded = torch.zeros(2, 4, dtype=torch.bool)
    excluded[:, 3] = True
    with_mask = ranking_loss(questions, candidates, gold, temperature=0.1, excluded=excluded)
    without = ranking_loss(questions, candidates[:3], gold, temperature=0.1)
    torch.testing.assert_close(with_mask, without)


def test_reverse_ranking_loss_takes_other_questions_of_the_gold_for_no_negatives() -> None:
    questions = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = reverse_ranking_loss(questions, candidates, torch.tensor([0, 0, 1]), temperature=1.0)
    # Candidate 0 scores the questions 1, .8 and 0; candidate 1 scores them 0, .6 and 1.
    shares = [
        minus_log_share([1.0, 0.0], 0),
        minus_log_share([0.8, 0.0], 0),
        minus_log_share([0.0, 0.6, 1.0], 2),
    ]
    assert loss.item() == pytest.approx(sum(shares) / 3, abs=1e-6)


def test_paired_loss_is_cross_entropy_both_ways() -> None:
    first, second = unit(5, 8), unit(5, 8, seed=1)
    same = torch.eye(5, dtype=torch.bool)
    loss = paired_loss(first, second, temperature=0.07, same=same)
    scores = first @ second.T / 0.07
    target = torch.arange(5)
    both = [functional.cross_entropy(part, target) for part in (scores, scores.T)]
    torch.testing.assert_close(loss, sum(both) / 2)


def test_pairs_that_share_a_text_are_no_negatives_of_each_other() -> None:
    first, second = unit(3, 8), unit(3, 8, seed=1)
    second[1] = second[0]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    loss = paired_loss(first, second, temperature=1.0, same=same)
    scores = (first @ second.T).tolist()
    forward = [
        minus_log_share([scores[0][0], scores[0][2]], 0),
        minus_log_share([scores[1][1], scores[1][2]], 0),
        minus_log_share(scores[2], 2),
    ]
    backward = [
        minus_log_share([scores[0][0], scores[2][0]], 0),
        minus_log_share([scores[1][1], scores[2][1]], 0),
        minus_log_share([scores[row][2] for row in range(3)], 2),
    ]
    assert loss.item() == pytest.approx((sum(forward) + sum(backward)) / 6, abs=1e-6)


def test_anchor_loss_by_hand() -> None:
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    vectors = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    assert anchor_loss(vectors, start).item() == pytest.approx(0.2, abs=1e-6)


def test_distribution_loss_by_hand() -> None:
    teacher, student = torch.tensor([[0.2, 0.0]]), torch.tensor([[0.0, 0.1]])
    loss = distribution_loss(teacher, student, temperature=0.1)
    one = [math.exp(2) / (math.exp(2) + 1), 1 / (math.exp(2) + 1)]
    other = [1 / (1 + math.e), math.e / (1 + math.e)]
    expected = sum(p * math.log(p / q) for p, q in zip(one, other, strict=True))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert distribution_loss(teacher, teacher, temperature=0.1).item() == pytest.approx(0, abs=1e-7)
