"""The whole network learns new languages, and is held to what it knew.

Adding languages trains the embeddings of new pieces alone. Where that is not enough (a language
written in letters that the encoder knows, with endings that it does not), every parameter is
trained on the translations for some more epochs, while texts that the encoder knew keep near the
vectors that it gave them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from clrelkt.encoders import TrainableEncoder
from clrelkt.encoders.ragged import to_device
from clrelkt.errors import SettingsError, TrainingError
from clrelkt.mining.texts import distinct
from clrelkt.objectives import alignment_loss, anchor_loss
from clrelkt.training.bank import TextBank
from clrelkt.training.schedule import one_cycle

__all__ = ["RefinementSettings", "Translations", "refine"]

_CHECK_EVERY = 50

E = TypeVar("E", bound=TrainableEncoder)


@dataclass(frozen=True, slots=True)
class RefinementSettings:
    """How a network is refined.

    ``batch`` pairs make a step, together with ``kept_share`` times as many texts that shall stay
    where they are; ``anchor`` is the weight of 1 - cosine between where these are and were. The
    other settings are those of ``LanguageSettings``.
    """

    epochs: int
    batch: int = 2_048
    learning_rate: float = 5e-4
    warm_up: float = 0.1
    temperature: float = 0.05
    closeness: float = 20.0
    anchor: float = 20.0
    kept_share: float = 0.5

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 2:
            raise SettingsError(
                f"epochs {self.epochs}, batch {self.batch}: at least 0 and 2 expected"
            )
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} {getattr(self, name)}: above 0 expected")
        if self.closeness < 0 or self.anchor < 0 or self.kept_share < 0:
            raise SettingsError(
                f"closeness {self.closeness}, anchor {self.anchor}, kept_share {self.kept_share}: "
                "none may be negative"
            )


@dataclass(frozen=True, slots=True)
class Translations:
    """``other[i]`` translates ``english[i]`` and counts ``weights[i]``."""

    english: Sequence[str]
    other: Sequence[str]
    weights: Sequence[float]

    def __len__(self) -> int:
        return len(self.english)


def refine(
    start: TrainableEncoder,
    encoder: E,
    pairs: Translations,
    kept: Sequence[str],
    settings: RefinementSettings,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda steps: None,
) -> E:
    """Return ``encoder`` refined; ``start`` says where English and ``kept`` texts belong.

    ``advance`` is told of every step.

    Raises:
        TrainingError: the loss is not a number.
    """
    if not settings.epochs or not len(pairs):
        return encoder
    texts = list(dict.fromkeys([*pairs.other, *kept]))
    compact = encoder.compact(TextBank.token_ids(encoder, [], texts)).to(encoder.device)
    _Refinement(start, compact, pairs, kept, TextBank([], texts, compact), settings).run(
        seed, advance
    )
    return encoder.write_back(compact)


class _Refinement:
    def __init__(
        self,
        start: TrainableEncoder,
        encoder: TrainableEncoder,
        pairs: Translations,
        kept: Sequence[str],
        bank: TextBank,
        settings: RefinementSettings,
    ) -> None:
        self._encoder = encoder
        self._bank = bank
        self._settings = settings
        place = encoder.device
        english, rows = distinct(pairs.english)
        self._english = torch.from_numpy(rows).to(place)
        self._targets = torch.from_numpy(start.encode(english)).to(place)
        self._weights = torch.tensor(list(pairs.weights), dtype=torch.float32, device=place)
        self._other = bank.rows(pairs.other, "passage")
        self._kept = bank.rows(kept, "passage")
        self._kept_targets = torch.from_numpy(start.encode(kept)).to(place)
        self._optimiser = torch.optim.Adam(
            [parameter for _, parameter in encoder.named_parameters()], eps=1e-7, fused=True
        )

    def run(self, seed: int, advance: Callable[[int], None]) -> None:
        settings = self._settings
        batches = math.ceil(len(self._other) / settings.batch)
        total, done = settings.epochs * batches, 0
        for epoch in range(settings.epochs):
            rng = np.random.default_rng((seed, epoch))
            for chosen in np.array_split(rng.permutation(len(self._other)), batches):
                count = min(len(self._kept), round(len(chosen) * settings.kept_share))
                kept = rng.integers(0, max(1, len(self._kept)), count)
                loss = self._step(chosen, kept, done / total)
                done += 1
                advance(1)
                if (done % _CHECK_EVERY == 0 or done == total) and not math.isfinite(float(loss)):
                    raise TrainingError(
                        f"refinement, step {done} of {total}: the loss is {float(loss)}. Lower the "
                        f"learning rate ({settings.learning_rate:g})"
                    )

    def _step(self, chosen: np.ndarray, kept: np.ndarray, done: float) -> torch.Tensor:
        settings = self._settings
        rows = np.concatenate([self._other[chosen], self._kept[kept]])
        foreign, known = torch.split(
            self._encoder(self._bank.select(rows)), [len(chosen), len(kept)]
        )
        pairs = to_device(torch.from_numpy(chosen), foreign.device)
        english = self._english[pairs]
        loss = alignment_loss(
            foreign,
            self._targets[english],
            english,
            self._weights[pairs],
            temperature=settings.temperature,
            closeness=settings.closeness,
        )
        if len(kept):
            places = to_device(torch.from_numpy(kept), foreign.device)
            loss = loss + settings.anchor * anchor_loss(known, self._kept_targets[places])
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self._optimiser.param_groups:
            group["lr"] = one_cycle(settings.learning_rate, settings.warm_up, done)
        self._optimiser.step()
        return loss.detach()
