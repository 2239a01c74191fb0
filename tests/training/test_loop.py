from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder, TrainableEncoder
from clrelkt.errors import TrainingError
from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator
from clrelkt.mining import DenseMining
from clrelkt.objectives import TransferWeights
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.batches import Batches
from clrelkt.training.checkpoint import Checkpoint
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.methods import prepare
from clrelkt.training.recipe import DevSettings, Optimisation, Stage, Teacher, Transfer, WarmUp
from clrelkt.training.stage_method import Material, StageMethod

MakeMaterial = Callable[..., Material]
Log = list[dict[str, Any]]

WARM_UP = Stage(
    "warm-up",
    WarmUp(margin=0.24, bm25_epochs=1),
    Optimisation(epochs=2, batch=16, learning_rate=1e-4),
    DevSettings(patience=9, every_steps=1),
)
TEACHER = replace(
    WARM_UP, name="teacher", method=Teacher(DenseMining(hard=2, semi_hard=2, granularity="passage"))
)
STUDENT = replace(
    WARM_UP,
    name="student",
    method=Transfer(TransferWeights(question=0.1, document=1, document_question=0.3)),
)


class Trial:
    """One stage on the tiny corpus, and all that its surroundings hear of it."""

    def __init__(self, stage: Stage, material: Material, encoder: TrainableEncoder) -> None:
        self.stage = stage
        self.encoder = encoder
        self.bank = TextBank(*texts_of([material.corpus]), encoder)
        self.material = replace(material, bank=self.bank, start=copy.deepcopy(encoder))
        self.method = prepare(stage.method, self.material)
        self.evaluator = RetrievalEvaluator(
            material.corpus, EvaluationSettings(pool="passage"), split="dev", languages=["de", "ru"]
        )
        self.log: Log = []
        self.checkpoints: list[Checkpoint] = []
        self.ticks: list[tuple[int, int, float | None]] = []

    def run(
        self,
        checkpoint: Checkpoint | None = None,
        method: StageMethod | None = None,
        checkpoint_seconds: float = 1e9,
    ) -> dict[str, torch.Tensor]:
        def write(record: dict[str, Any]) -> int:
            self.log.append(record)
            return len(self.log)

        around = Surroundings(
            number=self.material.stage,
            seed=self.material.seed,
            log=write,
            save=lambda found: self.checkpoints.append(copy.deepcopy(found)),
            tick=lambda *values: self.ticks.append(values),
            checkpoint_seconds=checkpoint_seconds,
        )
        return train_stage(
            self.stage,
            self.encoder,
            method or self.method,
            self.bank,
            self.evaluator,
            around,
            checkpoint,
        )


StartTrial = Callable[..., Trial]


@pytest.fixture
def start_trial(make_material: MakeMaterial, tiny_encoder: MuseEncoder) -> StartTrial:
    def start(stage: Stage, encoder: TrainableEncoder | None = None) -> Trial:
        return Trial(stage, make_material("de", "ru"), encoder or copy.deepcopy(tiny_encoder))

    return start


def first_batch(trial: Trial) -> np.ndarray:
    examples = trial.method.examples(0, trial.encoder)
    rng = np.random.default_rng((trial.material.seed, trial.material.stage, 0, 0))
    lengths, optimisation = trial.bank.lengths, trial.stage.optimisation
    return Batches(examples, trial.method.encoded_columns, lengths, optimisation, rng)[0]


@pytest.mark.parametrize("stage", [WARM_UP, TEACHER, STUDENT], ids=lambda stage: stage.name)
def test_a_batchs_loss_is_that_of_texts_encoded_one_by_one(
    start_trial: StartTrial, stage: Stage
) -> None:
    trial = start_trial(replace(stage, optimisation=replace(stage.optimisation, epochs=1)))
    batch = first_batch(trial)

    def vectors(column: int) -> torch.Tensor:
        each = [trial.encoder(trial.bank.select(np.array([row]))) for row in batch[:, column]]
        return torch.cat(each).detach().double()

    if stage is STUDENT:
        question, document, english = vectors(0), vectors(1), vectors(2)
        mse = torch.nn.functional.mse_loss
        expected = 1000 * (0.1 * mse(question, english) + 0.3 * mse(question, document))
    else:
        anchor, positive, negative = vectors(0), vectors(1), vectors(2)
        nearer, farther = 1 - (anchor * positive).sum(1), 1 - (anchor * negative).sum(1)
        expected = (nearer - farther + 0.24).clamp(min=0).sum()
    trial.run()
    assert trial.log[0]["loss"] is None
    assert trial.log[1]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_gradient_step_is_adams_with_the_encoders_gradients(start_trial: StartTrial) -> None:
    trial = start_trial(replace(WARM_UP, optimisation=Optimisation(1, 1e-3, batch=1000)))
    twin = copy.deepcopy(trial.encoder)
    batch = first_batch(trial)
    vectors = torch.stack([twin(trial.bank.select(column)) for column in batch.T], dim=1)
    trial.method.loss(vectors, batch).backward()
    trial.run()
    for (name, trained), (_, start) in zip(
        trial.encoder.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert start.grad is not None
        # Adam's first step: its two moments are the gradient and its square.
        expected = start - 1e-3 * start.grad / (start.grad.abs() + 1e-7)
        large = start.grad.abs() > 1e-4
        assert large.any(), name
        torch.testing.assert_close(trained[large], expected[large], rtol=0, atol=2e-6)


def test_the_compact_table_gives_the_full_tables_weights(
    start_trial: StartTrial, tiny_encoder: MuseEncoder
) -> None:
    ten_steps = replace(WARM_UP, optimisation=replace(WARM_UP.optimisation, epochs=4, batch=24))
    full = start_trial(ten_steps)
    questions, candidates = texts_of([full.material.corpus])
    token_ids = TextBank.token_ids(tiny_encoder, questions, candidates)
    compact = start_trial(ten_steps, tiny_encoder.compact(token_ids))
    rows = [
        dict(trial.encoder.named_parameters())["network.embedding"].shape[0]
        for trial in (full, compact)
    ]
    assert rows[1] < rows[0]
    full.run()
    compact.run()
    assert full.log[-1]["step"] >= 10
    assert [record["dev_hit_rate@1"] for record in full.log] == [
        record["dev_hit_rate@1"] for record in compact.log
    ]
    assert isinstance(compact.encoder, MuseEncoder)
    together = tiny_encoder.write_back(compact.encoder)
    moved = 0.0
    for (name, one), other, start in zip(
        full.encoder.named_parameters(),
        together.parameters(),
        tiny_encoder.parameters(),
        strict=True,
    ):
        assert (one - other).abs().max() <= 1e-6, name
        moved = max(moved, (one - start).abs().max().item())
    assert moved > 1e-4


class Spy:
    """A method that notes when and with what encoder it is asked for examples."""

    def __init__(self, method: StageMethod) -> None:
        self._method = method
        self.encoded_columns = method.encoded_columns
        self.asked: list[tuple[int, float]] = []

    @property
    def notes(self) -> dict[str, int]:
        return self._method.notes

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        weight = sum(float(p.detach().double().sum()) for _, p in encoder.named_parameters())
        self.asked.append((epoch, weight))
        return self._method.examples(epoch, encoder)

    def texts(self, examples: np.ndarray) -> np.ndarray:
        return self._method.texts(examples)

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        return self._method.loss(vectors, examples)


def test_examples_are_renewed_each_epoch_with_the_encoder_as_it_is(start_trial: StartTrial) -> None:
    trial = start_trial(replace(TEACHER, optimisation=Optimisation(3, 1e-4, batch=64)))
    spy = Spy(trial.method)
    trial.run(method=spy)
    assert [epoch for epoch, _ in spy.asked] == [0, 1, 2]
    assert len({weight for _, weight in spy.asked}) == 3


def test_the_start_encoder_stays_as_it_was(
    start_trial: StartTrial, tiny_encoder: MuseEncoder
) -> None:
    trial = start_trial(STUDENT)
    trial.run()
    for start, before in zip(
        dict(trial.material.start.named_parameters()).values(),
        tiny_encoder.parameters(),
        strict=True,
    ):
        assert torch.equal(start, before)


@pytest.mark.parametrize("keep", ["best", "best-or-start"])
def test_the_best_on_dev_is_kept(start_trial: StartTrial, keep: Any) -> None:
    trial = start_trial(replace(STUDENT, dev=DevSettings(patience=99, every_steps=1, keep=keep)))
    start = copy.deepcopy(dict(trial.encoder.named_parameters()))
    best = trial.run(checkpoint_seconds=0)
    candidates = trial.log if keep == "best-or-start" else trial.log[1:]
    scores = [record["dev_hit_rate@1"] for record in candidates]
    kept = [record for record in trial.log if record["kept"]]
    assert kept[-1] is candidates[int(np.argmax(scores))]
    # The weights as they stood then, which the stage has left since.
    step = kept[-1]["step"]
    assert step < trial.log[-1]["step"]
    then = {0: start} | {found.position.step: found.tensors for found in trial.checkpoints}
    assert all(torch.equal(best[name], then[step][name]) for name in best)
    assert not all(torch.equal(best[name], p) for name, p in trial.encoder.named_parameters())


def test_patience_ends_the_stage(start_trial: StartTrial) -> None:
    dev = DevSettings(patience=2, every_steps=1, keep="best-or-start")
    # Steps so small that no rank changes: every evaluation is a bad one.
    trial = start_trial(replace(WARM_UP, dev=dev, optimisation=Optimisation(5, 1e-12, batch=16)))
    trial.run()
    assert [record["step"] for record in trial.log] == [0, 1, 2]
    assert [record["learning_rate"] for record in trial.log] == [1e-12, 5e-13, 2.5e-13]
    late = start_trial(
        replace(
            WARM_UP,
            dev=replace(dev, first_stop_epoch=1),
            optimisation=Optimisation(5, 1e-12, batch=16),
        )
    )
    late.run()
    epochs = [record["epoch"] for record in late.log]
    assert epochs.count(1) == 1
    assert epochs[-1] == 1


def test_what_is_left_at_the_end_is_evaluated(start_trial: StartTrial) -> None:
    trial = start_trial(replace(WARM_UP, dev=DevSettings(patience=9, every_steps=1000)))
    best = trial.run()
    assert len(trial.log) == 2
    assert trial.log[1]["step"] == trial.ticks[-1][0] == trial.ticks[-1][1]
    assert all(torch.equal(best[name], p) for name, p in trial.encoder.named_parameters())


@pytest.mark.parametrize("stage", [WARM_UP, TEACHER, STUDENT], ids=lambda stage: stage.name)
def test_going_on_from_any_checkpoint_gives_the_same_bits(
    start_trial: StartTrial, stage: Stage
) -> None:
    stage = replace(
        stage,
        dev=DevSettings(patience=9, times_per_epoch=2),
        optimisation=replace(stage.optimisation, batch=24),
    )
    whole = start_trial(stage)
    best = whole.run(checkpoint_seconds=0)
    assert len(whole.checkpoints) == whole.log[-1]["step"]
    for checkpoint in whole.checkpoints:
        trial = start_trial(stage)
        trial.log = whole.log[: checkpoint.position.log_lines]
        found = trial.run(copy.deepcopy(checkpoint))
        assert trial.log == whole.log
        assert found.keys() == best.keys()
        assert all(torch.equal(found[name], best[name]) for name in best)


def test_a_loss_that_is_not_a_number(start_trial: StartTrial) -> None:
    stage = replace(
        WARM_UP,
        optimisation=Optimisation(2, 1e30, batch=16),
        dev=DevSettings(patience=9, every_steps=1000),
    )
    with pytest.raises(
        TrainingError, match=r"stage 'warm-up', epoch 0, step 1: the loss is nan.*rate \(1e\+30\)"
    ):
        start_trial(stage).run()


def test_vectors_that_are_not_numbers_after_the_last_step(start_trial: StartTrial) -> None:
    stage = replace(WARM_UP, optimisation=Optimisation(1, 1e30, batch=1000))
    with pytest.raises(
        TrainingError, match="stage 'warm-up', epoch 0, step 1: the encoder's vectors are not fin"
    ):
        start_trial(stage).run()


def test_no_examples(start_trial: StartTrial) -> None:
    class Nothing(Spy):
        def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
            found = super().examples(epoch, encoder)
            return found if epoch < self.until else found[:0]

        until = 0

    trial = start_trial(WARM_UP)
    with pytest.raises(TrainingError, match="stage 'warm-up' has no examples to train on"):
        trial.run(method=Nothing(trial.method))
    trial = start_trial(WARM_UP)
    nothing = Nothing(trial.method)
    nothing.until = 1
    trial.run(method=nothing)
    # Nothing is left to learn: the stage ends in its second epoch.
    assert {record["epoch"] for record in trial.log} == {0}
