"""A step of the transfer stage: ragged and each text once, against padded and every pair's texts.

Both sides train the same weights (on the compact table) with the same optimiser. The padded side
accumulates gradients over chunks of pairs, each padded to its own longest text, so that it fits
into memory.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.training.bank import TextBank
from harness import DisagreementError, Options, Report, compare, main, timed
from padded_muse import PaddedMuse
from stage import TransferStage, adam

PAIRS = 128
CHUNK = 32
CHECKED = 64
TOLERANCE = 1e-4


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


class PaddedSide:
    """The peer: every pair's question and document are encoded anew, with padding."""

    def __init__(self, stage: TransferStage, start: MuseEncoder, bank: TextBank) -> None:
        self._stage = stage
        self._bank = bank
        self.network = PaddedMuse(dict(start.network.named_parameters()))
        self.optimiser = adam(list(self.network.parameters()))

    def accumulate(self, examples: np.ndarray) -> float:
        """Add up the gradients of a batch and return its loss."""
        total = 0.0
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            vectors = [self.network.encode(self._tokens(column)) for column in chunk[:, :2].T]
            loss = self._stage.method.loss(torch.stack(vectors, 1), chunk)
            loss = loss * (len(chunk) / len(examples))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def step(self, examples: np.ndarray) -> None:
        """Train on one batch."""
        self.optimiser.zero_grad()
        self.accumulate(examples)
        self.optimiser.step()

    def _tokens(self, rows: np.ndarray) -> list[torch.Tensor]:
        batch = self._bank.select(rows)
        return list(torch.split(batch.token_ids, batch.lengths.tolist()))


def largest_difference(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> tuple[float, str]:
    """Return the largest relative difference of a gradient (by its norm), and whose it is."""
    return max(
        (float((theirs[name] - value).norm() / value.norm()), name) for name, value in ours.items()
    )


def check_same(
    stage: TransferStage, encoder: MuseEncoder, bank: TextBank, examples: np.ndarray
) -> tuple[float, float]:
    """Return the relative differences of loss and gradients between the sides.

    In float64: in float32 a ReLU whose input is nearly zero may pass on one side alone.

    Raises:
        DisagreementError: one of them is too large.
    """
    exact = copy.deepcopy(encoder).double()
    padded = PaddedSide(stage, exact, bank)
    loss = stage.loss(exact, bank, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    of_loss = abs(padded.accumulate(examples) / float(loss.detach()) - 1)
    of_gradient, name = largest_difference(gradients(exact.network), gradients(padded.network))
    if max(of_loss, of_gradient) > TOLERANCE:
        raise DisagreementError(
            f"padded and ragged differ by {of_loss:.1e} of the loss and by {of_gradient:.1e} of "
            f"the gradient of {name}; expected at most {TOLERANCE:.0e}"
        )
    return of_loss, of_gradient


def measure(options: Options) -> Report:
    """Run the benchmark."""
    stage = TransferStage(options, "document")
    encoder = stage.compact()
    bank = stage.bank_of(encoder)
    rounds = 2 if options.quick else 3
    first, *batches = stage.batches(rounds + 1, PAIRS)
    of_loss, of_gradient = check_same(stage, encoder, bank, first[:CHECKED])
    optimiser, padded = adam(list(encoder.parameters())), PaddedSide(stage, encoder, bank)
    stage.step(encoder, bank, optimiser, first[:CHUNK])
    padded.step(first[:CHUNK])
    turns = {side: iter(batches) for side in ("ours", "padded")}
    comparison = compare(
        f"transfer step, {PAIRS} pairs",
        lambda: timed(lambda: stage.step(encoder, bank, optimiser, next(turns["ours"]))),
        lambda: timed(lambda: padded.step(next(turns["padded"]))),
        rounds=rounds,
        target=4.0,
    )
    encoded = batches[0][:, :2]
    notes: dict[str, str | float] = {
        "tokens of a step": f"{bank.lengths[np.unique(encoded)].sum()} ragged, each text once; "
        f"{padded_tokens(bank, encoded)} padded, in chunks of {CHUNK} pairs",
        f"relative difference of the loss of {CHECKED} pairs, in float64": of_loss,
        "largest relative difference of a parameter's gradient, likewise": of_gradient,
    }
    return Report("transfer_step", (comparison,), notes)


def padded_tokens(bank: TextBank, encoded: np.ndarray) -> int:
    chunks = np.split(bank.lengths[encoded], range(CHUNK, len(encoded), CHUNK))
    return int(sum(len(chunk) * chunk.max(0).sum() for chunk in chunks))


if __name__ == "__main__":
    main(__doc__, measure)
