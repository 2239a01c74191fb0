"""Training steps of mUSE against the least time that their operations and bytes take.

    python bench/muse_training.py --device cuda --row muse-training.json

A step is that of the training loop: vectors of the batch's texts, the loss's gradient flowing back,
Adam. The texts are XQuAD's questions, passages and documents, drawn with replacement until the
batch has ``--tokens`` tokens; the vocabulary is theirs. The limit counts floating-point operations
and bytes phase by phase (``phases``), each at the rates that large matrix products and copies reach
on this card, and takes the larger of the two for each phase: phases wait for one another.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.muse.forward import BRANCH_WIDTH, BRANCHES
from clrelkt.errors import ClrelktError
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.device import choose_device, matrix_precision
from clrelkt.training.gradients import BatchGradients, SharedBatch
from clrelkt.training.process_group import ProcessGroup
from harness import Options, read_encoder, read_questions, timed
from kernel_times import show_kernels
from limits import Limits, measure_limits, peak_memory
from rows import Row, write_rows
from stage import adam

TARGET = 0.5


class TowardsTargets:
    """The simplest loss of vectors: the mean square of their difference from given ones."""

    encoded_columns = 1

    @property
    def notes(self) -> dict[str, int]:
        """Nothing is left out."""
        return {}

    def __init__(self, targets: torch.Tensor) -> None:
        self._targets = targets

    def examples(self, epoch: int, encoder: object) -> np.ndarray:
        """Return each text's number."""
        return np.arange(len(self._targets))[:, None]

    def texts(self, examples: np.ndarray) -> np.ndarray:
        """Return the examples: each is a text."""
        return examples

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        """Return the loss of the whole batch."""
        return functional.mse_loss(vectors.squeeze(1), self._targets)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a step: floating-point operations, and bytes read and written."""

    name: str
    flop: float
    moved: float


def phases(encoder: MuseEncoder, tokens: int, texts: int, distinct: int, size: int) -> list[Phase]:
    """Count a step's work, each operand of a phase read once and each result written once.

    ``distinct`` rows of the table are worked on; rows are kept in numbers of ``size`` bytes,
    parameters, their gradients and Adam's moments in 4.
    """
    shapes = {name: p.shape for name, p in encoder.network.named_parameters()}
    embedding = shapes["embedding"][1]
    inner = len(BRANCHES) * BRANCH_WIDTH
    taps = sum(window for window, _ in BRANCHES)
    square = BRANCH_WIDTH**2
    named = ("token_linear", "hidden_0", "hidden_1", "hidden_2", "hidden_3", "shortcut_1")
    per_text = sum(int(np.prod(shapes[name])) for name in (*named, "shortcut_3"))
    numbers = sum(p.numel() for p in encoder.network.parameters())
    row = tokens * inner * size
    table = distinct * (embedding + inner + taps * BRANCH_WIDTH)
    tables = 2.0 * distinct * (embedding * inner + taps * square)
    convolution = 2.0 * tokens * taps * square
    return [
        Phase("tables", tables, 2 * table * size),
        Phase("first convolution", 0, distinct * taps * BRANCH_WIDTH * size + row),
        Phase("second convolution", convolution, 2 * row),
        Phase("normalise and pool", 0, 2 * row),
        Phase("text layers", 3 * 2.0 * texts * per_text, 3 * 4 * per_text),
        Phase("normalise, backwards", 0, 4 * row),
        Phase("second convolution, backwards", convolution, 2 * row),
        Phase("second kernels' gradients", convolution, 2 * row),
        Phase("first convolution, backwards", 0, 5 * row),
        Phase("gradients by token", 0, 2 * row + table * 4),
        Phase("tables, backwards", 2 * tables, 4 * table * size),
        Phase("Adam", 0, 8 * 4 * numbers),
    ]


class Steps:
    """Training steps on one batch."""

    def __init__(self, options: Options, tokens: int, precision: str) -> None:
        corpus = read_questions(options)
        base = read_encoder(options)
        texts = texts_of((corpus,))
        self.encoder = base.compact(TextBank.token_ids(base, *texts)).to(options.device)
        group = ProcessGroup(device=self.encoder.device)
        bank = TextBank(*texts, self.encoder, group)
        rows = np.random.default_rng(0).integers(0, len(bank), 64 + 2 * tokens // 15)
        count = 1 + int(np.searchsorted(bank.lengths[rows].cumsum(), tokens))
        chosen = bank.select_on_host(rows[:count])
        self.tokens, self.texts = chosen.tokens, len(chosen)
        self.distinct = len(torch.unique(chosen.token_ids))
        targets = functional.normalize(torch.randn(self.texts, self.encoder.dimension), dim=1)
        places = torch.arange(self.texts, device=self.encoder.device)[:, None]
        self._batch = SharedBatch(
            examples=places.cpu().numpy(),
            texts=chosen.to(self.encoder.device),
            lengths=chosen.lengths.tolist(),
            counts=[self.texts],
            places=places,
        )
        self._gradients = BatchGradients(
            self.encoder,
            TowardsTargets(targets.to(self.encoder.device)),
            group=group,
            budget=TokenBudget(),
            precision=precision,  # type: ignore[arg-type]
        )
        self._optimiser = adam(list(self.encoder.parameters()))

    def take(self, count: int) -> None:
        """Take so many steps."""
        for _ in range(count):
            self._gradients(self._batch)
            self._optimiser.step()


def measure(arguments: argparse.Namespace) -> None:
    device = str(choose_device(arguments.device))
    options = Options(arguments.quick, arguments.threads, device)
    low = arguments.precision == "bfloat16"
    tokens = arguments.tokens or (4_000 if arguments.quick else 524_288)
    with matrix_precision(torch.device(device)):
        limits = measure_limits(device, torch.bfloat16 if low else torch.float32)
        steps = Steps(options, tokens, arguments.precision)
        steps.take(3)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if arguments.profile:
            show_kernels(lambda: steps.take(5), 5)
        count = 1 if arguments.quick else arguments.steps
        seconds = [timed(lambda: steps.take(count)) / count for _ in range(arguments.rounds)]
    counted = phases(steps.encoder, steps.tokens, steps.texts, steps.distinct, 2 if low else 4)
    report(arguments, steps, limits, counted, seconds, peak_memory(device))


def report(
    arguments: argparse.Namespace,
    steps: Steps,
    limits: Limits,
    counted: list[Phase],
    seconds: list[float],
    memory: int | None,
) -> None:
    least = {phase.name: limits.seconds(phase.flop, phase.moved) for phase in counted}
    bound = sum(least.values())
    flop, moved = sum(p.flop for p in counted), sum(p.moved for p in counted)
    step = statistics.median(seconds)
    print(f"{steps.tokens} tokens, {steps.texts} texts, {steps.distinct} distinct tokens")
    print(f"measured limits: {limits.flop / 1e12:.1f} TFLOP/s, {limits.bytes / 1e9:.0f} GB/s")
    for phase in counted:
        share = least[phase.name] / bound
        print(
            f"  {phase.name:<32}{phase.flop / 1e9:>9.1f} GFLOP{phase.moved / 1e6:>9.0f} MB"
            f"{1e3 * least[phase.name]:>8.3f} ms {share:>5.0%}"
        )
    print(f"counted: {flop / 1e9:.0f} GFLOP, {moved / 1e6:.0f} MB, at least {1e3 * bound:.3f} ms")
    print(
        f"a step: {1e3 * step:.3f} ms, {steps.tokens / step:,.0f} tokens/s; "
        f"{flop / step / limits.flop:.0%} of the matrix limit, "
        f"{moved / step / limits.bytes:.0%} of the copy limit"
    )
    ratios = [bound / value for value in seconds]
    row = Row(
        work=f"mUSE training, {steps.tokens} tokens a step, {arguments.precision}",
        against="its own roofline: operations and bytes counted phase by phase",
        target=TARGET,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        ours=steps.tokens / step,
        theirs=steps.tokens / bound,
        unit="tokens/s",
        peak_memory=memory,
    )
    print(f"ratio {row.ratio:.3f} ({row.spread[0]:.3f} to {row.spread[1]:.3f}), target {TARGET}")
    if memory is not None:
        print(f"peak memory {memory / 2**30:.1f} GiB")
    if arguments.row:
        write_rows(arguments.row, [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cpu or cuda [default: cuda where there is one]")
    parser.add_argument("--tokens", type=int, help="tokens of a step [default: 524288]")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument(
        "--profile", action="store_true", help="show first which kernels take a step's time"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--quick", action="store_true", help="smoke run on the bundled corpus")
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the result as one row")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        measure(arguments)
    except ClrelktError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
