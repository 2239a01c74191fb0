"""What an evaluation on dev decides: the learning rate, the kept encoder, the end of a stage."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from clrelkt.training.recipe import DevSettings, Optimisation

__all__ = ["Progress", "Verdict", "one_cycle"]

_POINTS = 40


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after an evaluation."""

    keep: bool
    stop: bool


@dataclass(slots=True)
class Progress:
    """How a stage stands.

    ``best`` is the highest dev score of what may be kept, ``bad`` counts the evaluations since
    then, ``losses`` and ``loss_sum`` are the batches since the last evaluation and their losses;
    ``curve`` holds each of these.
    """

    learning_rate: float
    best: float | None = None
    bad: int = 0
    losses: int = 0
    loss_sum: float = 0.0
    curve: list[float] = field(default_factory=list)

    def judge(
        self, score: float, epoch: int, optimisation: Optimisation, dev: DevSettings
    ) -> Verdict:
        """Take in the score of an evaluation in ``epoch`` (the first is 0)."""
        if self.best is None or score > self.best:
            self.best, self.bad = score, 0
            return Verdict(keep=True, stop=False)
        self.bad += 1
        since_first = self.bad - optimisation.halve_first
        halves = optimisation.schedule == "halve"
        if halves and since_first >= 0 and since_first % optimisation.halve_every == 0:
            floor = optimisation.learning_rate * optimisation.rate_floor
            self.learning_rate = max(self.learning_rate / 2, floor)
        stop = self.bad >= dev.patience and epoch >= dev.first_stop_epoch
        return Verdict(keep=False, stop=stop)

    def add_loss(self, loss: float) -> None:
        """Take in the loss of a batch."""
        self.losses += 1
        self.loss_sum += loss
        self.curve.append(loss)

    def take_mean_loss(self) -> float | None:
        """Return the mean loss since the last call, None where there was no batch."""
        mean = self.loss_sum / self.losses if self.losses else None
        self.losses, self.loss_sum = 0, 0.0
        return mean

    def take_curve(self) -> list[float]:
        """Return the losses since the last call, as at most 40 means of consecutive batches."""
        width = math.ceil(len(self.curve) / _POINTS)
        parts = [self.curve[at : at + width] for at in range(0, len(self.curve), width or 1)]
        self.curve = []
        return [float(f"{sum(part) / len(part):.5g}") for part in parts]

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**record)


def one_cycle(peak: float, warm_up: float, done: float) -> float:
    """Return the learning rate after the share ``done`` of all steps.

    It rises from a twenty-fifth of ``peak`` during the share ``warm_up`` and falls to 0 then, both
    along half a cosine.
    """
    if done < warm_up:
        low, share = 0.04, 1 - done / warm_up
    else:
        low, share = 0.0, (done - warm_up) / (1 - warm_up)
    return peak * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)
