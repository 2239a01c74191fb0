"""The loop: one for all stages, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clrelkt.encoders import RaggedBatch, TextKind, TrainableEncoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.ragged import to_device
from clrelkt.errors import TrainingError
from clrelkt.evaluation import Results, RetrievalEvaluator
from clrelkt.training.bank import TextBank
from clrelkt.training.batches import Batches, evaluation_steps
from clrelkt.training.checkpoint import Checkpoint, Position
from clrelkt.training.gradients import BatchGradients, SharedBatch
from clrelkt.training.process_group import ProcessGroup, balanced_shares
from clrelkt.training.recipe import Stage
from clrelkt.training.schedule import Progress
from clrelkt.training.stage_method import StageMethod

__all__ = ["Surroundings", "train_stage"]

_BEST = "best/"
_AVERAGE = "average/"
_RISE = 0.1
_MOMENTS = ("exp_avg", "exp_avg_sq")
_LOOKS_EVERY = 32


@dataclass(frozen=True)
class Surroundings:
    """What a stage needs from its run.

    ``log`` appends a record to the run's log and returns the number of its lines; ``save`` writes
    a checkpoint; ``tick`` is told of every step for a progress bar. ``group`` are the processes
    that carry out the run, which each has its own ``budget`` of tokens with gradients.
    """

    number: int
    seed: int
    log: Callable[[dict[str, Any]], int]
    save: Callable[[Checkpoint], None]
    tick: Callable[[int, int, float | None], None]
    checkpoint_seconds: float = 60.0
    log_lines: int = 0
    group: ProcessGroup = field(default_factory=ProcessGroup)
    budget: TokenBudget = field(default_factory=TokenBudget)


def train_stage(
    stage: Stage,
    encoder: TrainableEncoder,
    method: StageMethod,
    bank: TextBank,
    evaluator: RetrievalEvaluator,
    around: Surroundings,
    checkpoint: Checkpoint | None = None,
) -> dict[str, torch.Tensor]:
    """Train ``encoder`` in place and return the tensors of the best one on dev.

    With ``checkpoint`` the stage goes on from there; on a CPU with the same number of threads to
    the same bits.

    Raises:
        TrainingError: nothing to train on, or a loss that is not a number.
    """
    return _StageRun(stage, encoder, method, bank, evaluator, around).run(checkpoint)


class _StageRun:
    def __init__(
        self,
        stage: Stage,
        encoder: TrainableEncoder,
        method: StageMethod,
        bank: TextBank,
        evaluator: RetrievalEvaluator,
        around: Surroundings,
    ) -> None:
        self._stage = stage
        self._encoder = encoder
        self._method = method
        self._bank = bank
        self._evaluator = evaluator
        self._around = around
        self._gradients = BatchGradients(
            encoder,
            method,
            group=around.group,
            budget=around.budget,
            precision=stage.optimisation.precision,
        )
        self._losses = _Losses(bank.device)
        self._parameters = dict(encoder.named_parameters())
        self._optimiser = torch.optim.Adam(
            self._parameters.values(),
            lr=stage.optimisation.learning_rate,
            betas=(0.9, stage.optimisation.adam_beta2),
            eps=stage.optimisation.adam_epsilon,
            fused=True,
        )
        self._average: dict[str, torch.Tensor] = {}
        if stage.optimisation.average:
            self._average = self._copied()
        self._progress = Progress(stage.optimisation.learning_rate)
        self._best: dict[str, torch.Tensor] = {}
        self._position = Position(around.number, log_lines=around.log_lines)
        self._examples: np.ndarray | None = None
        self._saved_at = time.monotonic()

    def run(self, checkpoint: Checkpoint | None) -> dict[str, torch.Tensor]:
        if checkpoint is None:
            self._evaluate_start()
        else:
            self._restore(checkpoint)
        self._around.group.copy_from_first(list(self._parameters.values()))
        stopped = False
        while not stopped and self._position.epoch < self._stage.optimisation.epochs:
            stopped = self._run_epoch()
        self._look_at_losses()
        if self._progress.losses or self._progress.best is None:
            self._evaluate()
        return self._best

    def _run_epoch(self) -> bool:
        """Train to the end of the epoch, or until dev says stop; return whether it did."""
        epoch = self._position.epoch
        if self._examples is None:
            self._look_at_losses()
            found = self._method.examples(epoch, self._encoder)
            self._examples = self._around.group.same(found)
        if not len(self._examples):
            if epoch == 0:
                raise TrainingError(f"stage {self._stage.name!r} has no examples to train on")
            return True
        batches = self._batches(self._examples)
        times = self._stage.dev.times_per_epoch
        marks = evaluation_steps(len(batches), times) if times else frozenset()
        with contextlib.closing(self._shared(batches)) as shared:
            for number, batch in enumerate(shared, self._position.batch):
                total = len(batches) * self._stage.optimisation.epochs
                self._step(batch, (self._position.step + 1) / total)
                self._moved(number + 1, len(batches))
                every = self._stage.dev.every_steps
                due = self._position.step % every == 0 if every else number + 1 in marks
                if due and self._evaluate():
                    return True
                self._save_if_time()
        self._position = Position(
            self._position.stage, epoch + 1, 0, self._position.step, self._position.log_lines
        )
        self._examples = None
        return False

    def _batches(self, examples: np.ndarray) -> Batches:
        seed = (self._around.seed, self._around.number, self._position.epoch, 0)
        return Batches(
            examples,
            self._method.encoded_columns,
            self._bank.lengths,
            self._stage.optimisation,
            np.random.default_rng(seed),
        )

    def _shared(self, batches: Batches) -> Generator[SharedBatch, None, None]:
        """Yield the batches that are left of an epoch; for a GPU one is made while another trains.

        On a CPU that would be slower: while two threads compute in parallel, OpenMP's threads
        sleep instead of waiting for the next thing to do.
        """
        left = range(self._position.batch, len(batches))
        steps = range(self._position.step, self._position.step + len(left))
        asked = zip(left, steps, strict=True)
        if self._bank.device.type == "cpu":
            yield from (self._share(batches[number], step) for number, step in asked)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for number, step in asked:
                made = pool.submit(self._share, batches[number], step)
                if coming is not None:
                    yield coming.result()
                coming = made
            if coming is not None:
                yield coming.result()

    def _share(self, examples: np.ndarray, step: int) -> SharedBatch:
        """Choose the texts that this process encodes in a step; each distinct text goes once."""
        encoded = self._method.texts(examples)
        distinct, places = np.unique(encoded, return_inverse=True)
        group = self._around.group
        shares = balanced_shares(self._bank.lengths[distinct], group.size)
        position = np.argsort(np.concatenate(shares))
        chosen = self._choose(distinct, shares[group.rank], step)
        return SharedBatch(
            examples=examples,
            texts=chosen.to(self._bank.device),
            lengths=chosen.lengths.tolist(),
            counts=[len(share) for share in shares],
            places=to_device(
                torch.from_numpy(position[places].reshape(encoded.shape)), self._bank.device
            ),
        )

    def _choose(self, distinct: np.ndarray, share: np.ndarray, step: int) -> RaggedBatch:
        """Return the texts of a process's share, on the host."""
        dropout = self._stage.optimisation.token_dropout
        if not dropout:
            return self._bank.select_on_host(distinct, share)
        # What is left out is drawn for the whole batch, so that the number of processes is the same
        # to it.
        key = (self._around.seed, self._around.number, step)
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        return self._bank.select_on_host(distinct, share, dropout=dropout, seed=seed)

    def _step(self, batch: SharedBatch, share: float) -> None:
        """Take a step; ``share`` of all steps are done with it."""
        try:
            loss = self._gradients.start(batch)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"stage {self._stage.name!r}: out of memory in the loss of a batch of "
                f"{len(batch.examples)} examples, which cannot be cut. Lower the recipe's batch"
            ) from error
        self._losses.add(loss, self._position)
        if self._losses.due:
            self._look_at_losses()
        if self._stage.optimisation.schedule == "cosine":
            self._progress.learning_rate = _cosine(self._stage.optimisation.learning_rate, share)
        for group in self._optimiser.param_groups:
            group["lr"] = self._progress.learning_rate
        self._gradients.finish(self._optimiser.step)
        self._move_average()

    def _look_at_losses(self) -> None:
        """Take in the losses since the last look, and stop where one is no number."""
        for position, value in self._losses.take():
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value}", position)
            self._progress.add_loss(value)

    @torch.no_grad()
    def _move_average(self) -> None:
        if not self._average:
            return
        # Early steps count more, so that the start is soon forgotten.
        steps = self._position.step + 1
        decay = min(self._stage.optimisation.average, steps / (steps + 9))
        averages = list(self._average.values())
        torch._foreach_lerp_(averages, list(self._parameters.values()), 1 - decay)

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self._parameters.items()}

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the average in the parameters' place while the block runs."""
        if not self._average:
            yield
            return
        current = self._copied()
        self._load(self._average)
        try:
            yield
        finally:
            self._load(current)

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])

    def _moved(self, batch: int, batches: int) -> None:
        position = self._position
        self._position = Position(
            position.stage, position.epoch, batch, position.step + 1, position.log_lines
        )
        total = batches * self._stage.optimisation.epochs
        self._around.tick(position.epoch * batches + batch, total, self._progress.best)

    def _diverged(self, what: str, position: Position) -> TrainingError:
        return TrainingError(
            f"stage {self._stage.name!r}, epoch {position.epoch}, step {position.step}: {what}. "
            f"Lower the learning rate ({self._progress.learning_rate:g}) or look for texts that "
            "are broken"
        )

    def _measure(self) -> Results:
        self._look_at_losses()
        encode = self._bank.encode_with(self._encoder)

        def finite(texts: Sequence[str], kind: TextKind) -> np.ndarray:
            # After the last step no loss is left to show that the weights have run away.
            vectors = encode(texts, kind)
            if not np.isfinite(vectors).all():
                raise self._diverged("the encoder's vectors are not finite", self._position)
            return vectors

        with self._averaged():
            return self._evaluator(self._encoder, finite)

    def _evaluate_start(self) -> None:
        results = self._measure()
        if self._stage.dev.keep == "best-or-start":
            self._progress.best = results.mean.hit_rate_at_1
            self._keep()
        self._log(results, kept=self._stage.dev.keep == "best-or-start")

    def _evaluate(self) -> bool:
        """Measure on dev, keep the encoder if it is the best, and return whether to stop."""
        results = self._measure()
        verdict = self._progress.judge(
            # One process that came to another verdict would leave the others waiting.
            self._around.group.same(results.mean.hit_rate_at_1),
            self._position.epoch,
            self._stage.optimisation,
            self._stage.dev,
        )
        if verdict.keep:
            self._keep()
        self._log(results, kept=verdict.keep)
        return verdict.stop

    def _keep(self) -> None:
        with self._averaged():
            self._best = self._copied()

    def _log(self, results: Results, *, kept: bool) -> None:
        lines = self._around.log(
            {
                "stage": self._stage.name,
                "epoch": self._position.epoch,
                "step": self._position.step,
                "loss": self._progress.take_mean_loss(),
                "losses": self._progress.take_curve(),
                "learning_rate": self._progress.learning_rate,
                "dev_hit_rate@1": results.mean.hit_rate_at_1,
                "languages": {
                    code: result.hit_rate_at_1 for code, result in results.languages.items()
                },
                "kept": kept,
            }
        )
        position = self._position
        self._position = Position(
            position.stage, position.epoch, position.batch, position.step, lines
        )

    def _save_if_time(self) -> None:
        if time.monotonic() - self._saved_at >= self._around.checkpoint_seconds:
            self._look_at_losses()
            self._around.save(self._checkpoint())
            self._saved_at = time.monotonic()

    def _checkpoint(self) -> Checkpoint:
        tensors = {name: p.detach().cpu() for name, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            state = self._optimiser.state[parameter]
            tensors |= {f"{moment}/{name}": state[moment].cpu() for moment in _MOMENTS}
            tensors[f"step/{name}"] = state["step"].cpu().reshape(1)
        tensors |= {f"{_BEST}{name}": tensor.cpu() for name, tensor in self._best.items()}
        tensors |= {f"{_AVERAGE}{name}": tensor.cpu() for name, tensor in self._average.items()}
        if self._examples is not None:
            tensors["examples"] = torch.from_numpy(self._examples).contiguous()
        return Checkpoint(self._position, self._progress.to_json(), tensors)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors
        self._position = checkpoint.position
        self._progress = Progress.from_json(checkpoint.progress)
        if "examples" in tensors:
            self._examples = tensors["examples"].numpy()
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(tensors[name])
            state = {
                moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS
            }
            step = tensors[f"step/{name}"].reshape(()).to(parameter.device)
            self._optimiser.state[parameter] = state | {"step": step}
            if self._average:
                self._average[name] = tensors[f"{_AVERAGE}{name}"].to(parameter.device)
            if f"{_BEST}{name}" in tensors:
                self._best[name] = tensors[f"{_BEST}{name}"].to(parameter.device)


class _Losses:
    """Losses that stay on the device until they are looked at: to read one is to wait for it."""

    def __init__(self, device: torch.device) -> None:
        self._most = 1 if device.type == "cpu" else _LOOKS_EVERY
        self._held: list[tuple[torch.Tensor, Position]] = []

    def add(self, loss: torch.Tensor, position: Position) -> None:
        """Hold the loss of the step at ``position``."""
        self._held.append((loss, position))

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self._held) >= self._most

    def take(self) -> list[tuple[Position, float]]:
        """Return what is held, with each step's position."""
        held, self._held = self._held, []
        values = torch.stack([loss for loss, _ in held]).tolist() if held else []
        return [(position, value) for (_, position), value in zip(held, values, strict=True)]


def _cosine(peak: float, share: float) -> float:
    """Return the learning rate once ``share`` of all steps are done, from above 0 to 1."""
    if share < _RISE:
        return peak * share / _RISE
    return peak * (1 + math.cos(math.pi * (share - _RISE) / (1 - _RISE))) / 2
