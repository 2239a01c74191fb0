from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder, RaggedBatch
from clrelkt.encoders.memory import TokenBudget
from clrelkt.errors import EncoderError, TrainingError
from clrelkt.objectives import TransferWeights
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.gradients import BatchGradients, SharedBatch, _Bucket
from clrelkt.training.methods import prepare
from clrelkt.training.process_group import ProcessGroup
from clrelkt.training.recipe import Contrastive, Method, Precision, Transfer, WarmUp
from clrelkt.training.stage_method import Material, StageMethod

MakeMaterial = Callable[..., Material]

EXAMPLES = 6
METHODS = [
    WarmUp(margin=0.24),
    Transfer(TransferWeights(question=0.1, document=1, document_question=0.3)),
    Contrastive(whole_documents=0.5, english=0.3, anchor=2.0, directions="both"),
]


class Forgetful(MuseEncoder):
    """An encoder that runs out of memory beyond so many tokens, with gradients or without."""

    most = 10**9
    most_without = 10**9
    most_backward = 10**9

    def forward(self, batch: RaggedBatch) -> torch.Tensor:
        most = self.most if torch.is_grad_enabled() else self.most_without
        if batch.tokens > most:
            raise torch.OutOfMemoryError(f"{batch.tokens} tokens")
        vectors = super().forward(batch)
        if vectors.requires_grad and batch.tokens > self.most_backward:
            vectors.register_hook(self._refuse)
        return vectors

    def _refuse(self, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("backward")


def forgetful(encoder: MuseEncoder) -> Forgetful:
    made = copy.deepcopy(encoder)
    return Forgetful(made.network, made.tokenizer, made.identity)


class Case:
    """A batch of a method's first examples, in float64."""

    def __init__(self, method: Method, material: Material, encoder: MuseEncoder) -> None:
        from clrelkt.training.supplies import load_supplies

        self.encoder = forgetful(encoder).double()
        bank = TextBank(*texts_of([material.corpus]), self.encoder)
        supplies = load_supplies(method, material.corpus, ["de", "ru"])
        own = replace(material, bank=bank, start=copy.deepcopy(self.encoder), supplies=supplies)
        self.method: StageMethod = prepare(method, own)
        self.examples = self.method.examples(0, self.encoder)[:EXAMPLES]
        encoded = self.method.texts(self.examples)
        distinct, places = np.unique(encoded, return_inverse=True)
        texts = bank.select(distinct)
        self.batch = SharedBatch(
            examples=self.examples,
            texts=texts,
            lengths=texts.lengths.tolist(),
            counts=[len(texts)],
            places=torch.from_numpy(places.reshape(encoded.shape)),
        )

    def plain(self) -> tuple[float, dict[str, torch.Tensor]]:
        """Return loss and gradients as autograd has them, without any of what is tested."""
        encoder = copy.deepcopy(self.encoder)
        loss = self.method.loss(encoder(self.batch.texts)[self.batch.places], self.examples)
        loss.backward()
        return loss.item(), gradients(encoder)

    def in_pieces(
        self, budget: TokenBudget, precision: Precision = "float32"
    ) -> tuple[float, dict[str, torch.Tensor]]:
        compute = BatchGradients(
            self.encoder,
            self.method,
            group=ProcessGroup(),
            budget=budget,
            precision=precision,
        )
        loss = compute(self.batch)
        return loss.item(), gradients(self.encoder)


def gradients(encoder: MuseEncoder) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


def assert_close(
    found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-10, atol=1e-10)


@pytest.fixture(params=METHODS, ids=lambda method: type(method).__name__)
def case(
    request: pytest.FixtureRequest, make_material: MakeMaterial, tiny_encoder: MuseEncoder
) -> Case:
    return Case(request.param, make_material("de", "ru"), tiny_encoder)


@pytest.mark.parametrize("tokens", [None, 10**9, 150, 1])
def test_in_pieces_the_gradients_are_those_of_one_piece(case: Case, tokens: int | None) -> None:
    budget = TokenBudget(tokens)
    pieces = len(budget.cut(case.batch.lengths))
    assert pieces == {None: 1, 10**9: 1, 1: len(case.batch.lengths)}.get(tokens, pieces)
    assert tokens != 150 or pieces > 2
    assert_close(case.in_pieces(budget), case.plain())


@pytest.mark.parametrize("case", METHODS[1:2], indirect=True)
@pytest.mark.parametrize("where", ["most", "most_without", "most_backward"])
def test_out_of_memory_halves_the_pieces_and_says_so_once(case: Case, where: str) -> None:
    expected = case.plain()
    tokens, most = sum(case.batch.lengths), max(case.batch.lengths) + 20
    assert tokens > 2 * most
    setattr(case.encoder, where, most)
    said: list[str] = []
    budget = TokenBudget(tokens - 1 if where == "most_without" else None, said.append)
    assert_close(case.in_pieces(budget), expected)
    assert budget.tokens is not None
    assert most // 2 <= budget.tokens < 2 * most
    assert len(said) == 1
    assert "out of memory" in said[0]
    assert_close(case.in_pieces(budget), expected)


def test_a_single_text_that_does_not_fit(case: Case) -> None:
    case.encoder.most = case.encoder.most_without = max(case.batch.lengths) - 1
    with pytest.raises(EncoderError, match=rf"single text of {max(case.batch.lengths)} tokens"):
        case.in_pieces(TokenBudget())


def test_bfloat16_rounds_but_points_the_same_way(case: Case) -> None:
    case.encoder = case.encoder.float()
    low_loss, low = case.in_pieces(TokenBudget(), "bfloat16")
    loss, exact = case.in_pieces(TokenBudget(), "float32")
    assert low_loss == pytest.approx(loss, rel=0.1)
    assert low_loss != loss
    rounded, exact_flat = (
        torch.cat([g.flatten() for g in found.values()]) for found in (low, exact)
    )
    assert all(gradient.dtype == torch.float32 for gradient in low.values())
    assert torch.nn.functional.cosine_similarity(rounded, exact_flat, dim=0) > 0.98


@pytest.mark.parametrize("case", METHODS[:1], indirect=True)
def test_an_encoder_elsewhere_than_its_process_group_is_refused(case: Case) -> None:
    # With autocast switched on for the wrong device, all would run on, in float32.
    with pytest.raises(TrainingError, match=r"lies on cpu.* computes on meta"):
        BatchGradients(
            case.encoder,
            case.method,
            group=ProcessGroup(device=torch.device("meta")),
            budget=TokenBudget(),
        )


def test_a_bucket_has_zeros_where_a_parameter_has_no_gradient() -> None:
    parameters = [torch.nn.Parameter(torch.ones(*shape)) for shape in ((2, 3), (4,), (3, 2))]
    bucket = _Bucket()
    for parameter in parameters:
        bucket.add(parameter)
    for missing in ((), (1,), (0, 1, 2)):
        expected = []
        for number, parameter in enumerate(parameters):
            grown = torch.arange(parameter.numel()).float().reshape(parameter.shape) + number
            # A gradient's rows need not lie behind each other.
            turned = grown.movedim(0, -1).contiguous().movedim(-1, 0)
            parameter.grad = None if number in missing else turned
            expected.append(torch.zeros_like(grown) if number in missing else grown)
        flat = bucket.pack()
        assert torch.equal(flat, torch.cat([own.flatten() for own in expected]))
        # What the processes add up there is what the parameters get.
        flat.mul_(2)
        bucket.hand_back()
        for parameter, own in zip(parameters, expected, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, 2 * own)


def test_a_single_parameters_gradient_is_added_up_where_it_lies() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    bucket = _Bucket()
    bucket.add(parameter)
    for step in range(4):
        # In between one is missing, and one's rows do not lie behind each other.
        own = torch.arange(6.0).view(3, 2) if step != 2 else torch.arange(6.0).view(2, 3).T
        parameter.grad = None if step == 1 else own
        expected = torch.zeros(3, 2) if step == 1 else own.clone()
        flat = bucket.pack()
        assert torch.equal(flat, expected.flatten())
        assert (flat.data_ptr() == own.data_ptr()) == (step in (0, 3))
        bucket.forget()
        flat.mul_(2)
        bucket.hand_back()
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * expected)
