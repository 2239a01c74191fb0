from __future__ import annotations

import pytest
import torch

from clrelkt.errors import SettingsError
from clrelkt.objectives import TransferWeights, transfer_loss

TEACHER_QUESTION = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
TEACHER_DOCUMENT = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
STUDENT_QUESTION = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
STUDENT_DOCUMENT = torch.tensor([[0.0, -1.0], [1.0, 0.0]])


def test_terms_by_hand() -> None:
    terms = transfer_loss(
        teacher_question=TEACHER_QUESTION,
        teacher_document=TEACHER_DOCUMENT,
        student_question=STUDENT_QUESTION,
        student_document=STUDENT_DOCUMENT,
        weights=TransferWeights(question=0.5, document=0.25, document_question=2, scale=10),
    )
    # Squares summed over the four numbers of two pairs, divided by four.
    assert terms.question.item() == pytest.approx((0.16 + 0.64) / 4)
    assert terms.document.item() == pytest.approx(4 / 4)
    assert terms.document_question.item() == pytest.approx((0.36 + 0.04 + 1 + 1) / 4)
    assert terms.total.item() == pytest.approx(10 * (0.5 * 0.2 + 0.25 * 1 + 2 * 0.6))


def test_terms_are_torchs_mse_and_the_scale_is_1000() -> None:
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.randn(7, 16, generator=generator) for _ in range(4)]
    teacher_question, teacher_document, student_question, student_document = vectors
    terms = transfer_loss(
        teacher_question=teacher_question,
        teacher_document=teacher_document,
        student_question=student_question,
        student_document=student_document,
        weights=TransferWeights(question=0.001, document=1, document_question=0.01),
    )
    mse = torch.nn.MSELoss()
    expected = (
        mse(student_question, teacher_question),
        mse(student_document, teacher_document),
        mse(student_question, teacher_document),
    )
    torch.testing.assert_close((terms.question, terms.document, terms.document_question), expected)
    total = 1000 * (0.001 * expected[0] + expected[1] + 0.01 * expected[2])
    torch.testing.assert_close(terms.total, total)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(4)
    vectors = [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(4)]

    def loss(student_question: torch.Tensor, student_document: torch.Tensor) -> torch.Tensor:
        return transfer_loss(
            teacher_question=vectors[0],
            teacher_document=vectors[1],
            student_question=student_question,
            student_document=student_document,
            weights=TransferWeights(question=0.1, document=1, document_question=0.3),
        ).total

    students = (vectors[2].requires_grad_(), vectors[3].requires_grad_())
    assert torch.autograd.gradcheck(loss, students)


@pytest.mark.parametrize(
    ("weights", "scale"),
    [
        ((-0.1, 1, 1), 1000),
        ((0, 0, 0), 1000),
        ((1, 1, 1), 0),
        ((1, 1, 1), -1),
        ((float("nan"), 1, 1), 1000),
        ((1, 1, float("nan")), 1000),
        ((1, 1, 1), float("nan")),
        ((1, float("inf"), 1), 1000),
    ],
)
def test_weights_that_cannot_be(weights: tuple[float, float, float], scale: float) -> None:
    with pytest.raises(SettingsError, match="transfer weights"):
        TransferWeights(*weights, scale=scale)


def test_one_weight_alone_is_enough() -> None:
    assert TransferWeights(0, 0, 1e-4).scale == 1000
