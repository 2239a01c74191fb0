"""Examples in random order, cut into batches."""

from __future__ import annotations

import numpy as np

from clrelkt.training.recipe import Optimisation

__all__ = ["Batches", "evaluation_steps"]


class Batches:
    """The batches of one epoch: shuffled with ``rng``, the last one kept even if it is short.

    ``examples`` has shape (examples, columns); only the first ``encoded_columns`` count towards a
    token budget, each distinct text once a batch. ``lengths`` (texts,) are the texts' tokens.
    """

    def __init__(
        self,
        examples: np.ndarray,
        encoded_columns: int,
        lengths: np.ndarray,
        optimisation: Optimisation,
        rng: np.random.Generator,
    ) -> None:
        self._examples = examples[rng.permutation(len(examples))]
        if optimisation.batch_tokens is None:
            self._starts = list(range(0, len(examples), optimisation.batch))
        else:
            encoded = self._examples[:, :encoded_columns]
            self._starts = _cut(encoded, lengths, optimisation.batch, optimisation.batch_tokens)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the examples of one batch."""
        following = self._starts[number + 1 : number + 2]
        return self._examples[self._starts[number] : following[0] if following else None]


def _cut(encoded: np.ndarray, lengths: np.ndarray, most: int, budget: int) -> list[int]:
    starts: list[int] = []
    inside: set[int] = set()
    tokens = 0
    for place, texts in enumerate(encoded.tolist()):
        new = set(texts) - inside
        added = int(lengths[list(new)].sum())
        full = bool(starts) and (place - starts[-1] == most or tokens + added > budget)
        if full or not starts:
            starts.append(place)
            inside, tokens = set(texts), int(lengths[list(set(texts))].sum())
        else:
            inside |= new
            tokens += added
    return starts


def evaluation_steps(batches: int, times: int) -> frozenset[int]:
    """Return after which batches (the first is 1) an epoch is evaluated ``times`` times."""
    return frozenset(-(-batches * part // times) for part in range(1, times + 1)) - {0}
