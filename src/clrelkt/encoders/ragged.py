"""Batches of texts of different lengths, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["RaggedBatch", "to_device", "token_budget_slices"]


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """Token ids of several texts in one flat row.

    ``token_ids`` has shape (tokens,), ``lengths`` has shape (texts,); both int64, on one device.
    The ids of text ``i`` are the ``lengths[i]`` ids after the first ``lengths[:i].sum()``.
    ``lengths_on_host`` are the lengths on the CPU, where they are known: to ask a GPU for them is
    to wait for all that it still has to do.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    lengths_on_host: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def from_lists(cls, ids: Sequence[Sequence[int]]) -> RaggedBatch:
        """Build a batch from one list of token ids a text."""
        flat = [token for text in ids for token in text]
        return cls(
            torch.tensor(flat, dtype=torch.int64),
            torch.tensor([len(text) for text in ids], dtype=torch.int64),
        )

    @classmethod
    def from_arrays(cls, ids: Sequence[np.ndarray]) -> RaggedBatch:
        """Build a batch from one array of token ids a text, of any integers."""
        flat = np.concatenate(ids) if len(ids) else np.empty(0, dtype=np.int64)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return cls(torch.from_numpy(flat.astype(np.int64)), torch.from_numpy(lengths))

    def __len__(self) -> int:
        return self.lengths.shape[0]

    @property
    def tokens(self) -> int:
        """Number of tokens in all texts together."""
        return self.token_ids.shape[0]

    @property
    def host_lengths(self) -> torch.Tensor:
        """The lengths on the CPU, shape (texts,)."""
        return self.lengths.cpu() if self.lengths_on_host is None else self.lengths_on_host

    @property
    def text_of_token(self) -> torch.Tensor:
        """Which text each token belongs to, shape (tokens,)."""
        texts = torch.arange(len(self), device=self.lengths.device)
        return torch.repeat_interleave(texts, self.lengths, output_size=self.tokens)

    def to(self, device: torch.device | str) -> RaggedBatch:
        """Return the batch on ``device``."""
        return RaggedBatch(
            to_device(self.token_ids, device), to_device(self.lengths, device), self.host_lengths
        )

    def cut(self, runs: Iterable[slice]) -> Iterator[RaggedBatch]:
        """Yield runs of texts, which share the memory of this batch; the batch lies on a CPU."""
        ends = [0, *self.lengths.cumsum(0).tolist()]
        for run in runs:
            tokens = slice(ends[run.start], ends[run.stop])
            yield RaggedBatch(self.token_ids[tokens], self.lengths[run])

    def select(self, texts: torch.Tensor) -> RaggedBatch:
        """Return the texts with the given indices, shape (chosen,), in that order."""
        if self.lengths.device.type == "cpu":
            return self._select_on_host(texts.numpy())
        lengths = self.lengths[texts]
        starts = (self.lengths.cumsum(0) - self.lengths)[texts]
        tokens = int(lengths.sum())
        offsets = torch.repeat_interleave(
            starts - (lengths.cumsum(0) - lengths), lengths, output_size=tokens
        )
        return RaggedBatch(
            self.token_ids[torch.arange(tokens, device=offsets.device) + offsets], lengths
        )

    def _select_on_host(self, texts: np.ndarray) -> RaggedBatch:
        # By numpy, in one thread: torch wakes a thread on every core for it, in every step, and
        # they are in the way of the one that starts a GPU's kernels.
        all_lengths = self.lengths.numpy()
        lengths = all_lengths[texts]
        starts = (all_lengths.cumsum() - all_lengths)[texts]
        places = np.repeat(starts - (lengths.cumsum() - lengths), lengths)
        places += np.arange(len(places))
        ids = self.token_ids.numpy()[places]
        return RaggedBatch(torch.from_numpy(ids), torch.from_numpy(lengths))


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return ``tensor`` on ``device``; a GPU is not waited for."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        # From ordinary memory a copy would first wait for all that the GPU still has to do.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def token_budget_slices(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Cut a row of texts into runs of at most ``budget`` tokens.

    A text longer than the budget is a run of its own: nothing is ever cut short.
    """
    start = total = 0
    for position, length in enumerate(lengths):
        if position > start and total + length > budget:
            yield slice(start, position)
            start, total = position, 0
        total += length
    if start < len(lengths):
        yield slice(start, len(lengths))
