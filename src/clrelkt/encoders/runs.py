"""Many texts through a network, as many tokens at a time as the device holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.ragged import RaggedBatch, to_device

__all__ = ["vectors_in_runs"]

Forward = Callable[[RaggedBatch, tuple[int, ...]], torch.Tensor]
"""A batch on the device and its lengths on the host to vectors, shape (texts, dimension)."""


def vectors_in_runs(
    forward: Forward,
    batch: RaggedBatch,
    lengths: np.ndarray,
    device: torch.device,
    budget: TokenBudget,
) -> torch.Tensor:
    """Return the vectors of all texts, in their order, shape (texts, dimension), on ``device``.

    The texts are taken from the longest to the shortest, in runs of at most ``budget`` tokens, and
    moved to ``device`` run by run. ``lengths`` (texts,) are those of ``batch``, on the host.

    Raises:
        EncoderError: the GPU has no memory for a single text.
    """
    order = np.argsort(-lengths, kind="stable")
    places = torch.from_numpy(order)
    ordered = batch.select(places.to(batch.lengths.device))
    found = list(_runs(forward, ordered, lengths[order].tolist(), device, budget))
    vectors = torch.cat(found)
    return torch.empty_like(vectors).index_copy_(0, to_device(places, device), vectors)


def _runs(
    forward: Forward,
    batch: RaggedBatch,
    lengths: Sequence[int],
    device: torch.device,
    budget: TokenBudget,
) -> Iterator[torch.Tensor]:
    done = row = 0
    while done < len(lengths):
        run = budget.cut(lengths[done:])[0]
        texts = slice(done, done + run.stop)
        tokens = sum(lengths[texts])
        part = RaggedBatch(batch.token_ids[row : row + tokens], batch.lengths[texts])
        try:
            yield forward(part.to(device), tuple(lengths[texts]))
        except torch.OutOfMemoryError:
            pass
        else:
            done, row = texts.stop, row + tokens
            continue
        # Out of the block above: the error holds on to tensors that did fit.
        budget.halve(lengths[done:])
