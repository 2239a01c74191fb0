from __future__ import annotations

from typing import Literal

import pytest
import torch

from clrelkt.objectives import triplet_loss

# cos(a, p) = .6, cos(a, n) = .8 in the first row; cos(a, p) = 1, cos(a, n) = -1 in the second.
ANCHOR = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
POSITIVE = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
NEGATIVE = torch.tensor([[0.8, -0.6], [0.0, -1.0]])


@pytest.mark.parametrize(
    ("distance", "margin", "expected"),
    [
        # (1 - .6) - (1 - .8) + m = .2 + m, and 0 - 2 + m.
        ("cosine", 0.1, 0.3),
        ("cosine", 2.5, 2.7 + 0.5),
        # |a - p|^2 - |a - n|^2 = .8 - .4, and 0 - 4.
        ("euclidean", 0.1, 0.5),
        ("euclidean", 4.5, 4.9 + 0.5),
    ],
)
def test_values_by_hand(
    distance: Literal["cosine", "euclidean"], margin: float, expected: float
) -> None:
    loss = triplet_loss(ANCHOR, POSITIVE, NEGATIVE, margin=margin, distance=distance)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_is_summed() -> None:
    row = triplet_loss(ANCHOR[:1], POSITIVE[:1], NEGATIVE[:1], margin=0.1)
    five = [tensor[:1].repeat(5, 1) for tensor in (ANCHOR, POSITIVE, NEGATIVE)]
    assert triplet_loss(*five, margin=0.1).item() == pytest.approx(5 * row.item())


def test_euclidean_is_torchs_squared_distance() -> None:
    generator = torch.Generator().manual_seed(1)
    anchor, positive, negative = (
        torch.nn.functional.normalize(torch.randn(20, 8, generator=generator)) for _ in range(3)
    )
    nearer = torch.nn.functional.pairwise_distance(anchor, positive, eps=0) ** 2
    farther = torch.nn.functional.pairwise_distance(anchor, negative, eps=0) ** 2
    expected = (nearer - farther + 0.3).clamp(min=0).sum()
    loss = triplet_loss(anchor, positive, negative, margin=0.3, distance="euclidean")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_gradients(distance: Literal["cosine", "euclidean"]) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = [
        torch.nn.functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64))
        for _ in range(3)
    ]

    def loss(a: torch.Tensor, p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return triplet_loss(a, p, n, margin=0.24, distance=distance)

    assert loss(*rows).item() > 0
    assert torch.autograd.gradcheck(loss, [row.requires_grad_() for row in rows])


def test_a_triplet_beyond_the_margin_has_no_gradient() -> None:
    anchor = ANCHOR.clone().requires_grad_()
    triplet_loss(anchor, POSITIVE, NEGATIVE, margin=0.1).backward()
    assert anchor.grad is not None
    torch.testing.assert_close(anchor.grad[0], NEGATIVE[0] - POSITIVE[0])
    assert anchor.grad[1].tolist() == [0, 0]
