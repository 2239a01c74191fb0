from __future__ import annotations

import math

import pytest
import torch

from clrelkt.objectives import alignment_loss

VECTORS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def test_by_hand() -> None:
    targets = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    texts, weights = torch.tensor([4, 5]), torch.tensor([1.0, 3.0])
    loss = alignment_loss(VECTORS, targets, texts, weights, temperature=0.5, closeness=3.0)
    first = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(0.0))) + 3 * (1 - 0.8)
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(1.92))) + 3 * (1 - 0.8)
    assert float(loss) == pytest.approx((first + 3 * second) / 4, rel=1e-5)


def test_the_same_english_text_is_no_negative() -> None:
    targets = torch.tensor([[0.8, 0.6], [0.8, 0.6]])
    texts = torch.tensor([7, 7])
    loss = alignment_loss(VECTORS, targets, texts, torch.ones(2), temperature=0.05, closeness=0.0)
    assert float(loss) == pytest.approx(0.0)
