"""The best few of each row, ties broken by id, whatever the order they come in."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["NO_KEY", "Selection"]

NO_KEY = torch.iinfo(torch.int64).max
"""The key of a place that nothing has taken."""

_WIDTH = 128


@dataclass(frozen=True, slots=True)
class Selection:
    """The ``quota`` smallest (key, id) that each row has been offered so far.

    ``keys`` and ``ids`` have shape (rows, quota), int64, smallest first; a place that nothing has
    taken holds ``NO_KEY`` and -1. What a row holds in the end does not depend on the order or on
    the batches in which it was offered.
    """

    keys: torch.Tensor
    ids: torch.Tensor

    @classmethod
    def empty(cls, rows: int, quota: int, device: torch.device) -> Selection:
        """Return the selection of rows that have been offered nothing."""
        shape = (rows, quota)
        return cls(
            torch.full(shape, NO_KEY, dtype=torch.int64, device=device),
            torch.full(shape, -1, dtype=torch.int64, device=device),
        )

    @property
    def quota(self) -> int:
        """How many a row may hold."""
        return self.keys.shape[1]

    @property
    def worst(self) -> torch.Tensor:
        """The key that a row's next find must not exceed, shape (rows,); NO_KEY if not full."""
        return self.keys[:, -1]

    def offer(self, keys: torch.Tensor, ids: torch.Tensor) -> None:
        """Take in candidates of all rows, both (rows, candidates); ``NO_KEY`` offers nothing."""
        if self.quota and keys.shape[1]:
            self._keep(slice(None), keys, ids)

    def offer_pairs(self, rows: torch.Tensor, keys: torch.Tensor, ids: torch.Tensor) -> None:
        """Take in single candidates, all shape (pairs,); ``rows`` must ascend."""
        if not self.quota or not len(rows):
            return
        owners, owner, counts = torch.unique_consecutive(
            rows, return_inverse=True, return_counts=True
        )
        place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[owner]
        # Rows with many candidates come in several rounds, so that no table is wide for their sake.
        for start in range(0, int(counts.max()), _WIDTH):
            width = min(_WIDTH, int(counts.max()) - start)
            inside = (place >= start) & (place < start + width)
            busy = counts > start
            line = (busy.cumsum(0) - 1)[owner[inside]]
            column = place[inside] - start
            shape = (int(busy.sum()), width)
            table_keys = keys.new_full(shape, NO_KEY)
            table_ids = ids.new_full(shape, -1)
            table_keys[line, column] = keys[inside]
            table_ids[line, column] = ids[inside]
            self._keep(owners[busy], table_keys, table_ids)

    def _keep(self, rows: torch.Tensor | slice, keys: torch.Tensor, ids: torch.Tensor) -> None:
        best = _smallest(
            torch.cat((self.keys[rows], keys), dim=1),
            torch.cat((self.ids[rows], ids), dim=1),
            self.quota,
        )
        self.keys[rows], self.ids[rows] = best


def _smallest(
    keys: torch.Tensor, ids: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``count`` smallest of each row, equal keys by id, -1 as the id of no key.

    torch.topk leaves open which of several equal keys it returns.
    """
    found_keys, found_ids = [], []
    for _ in range(count):
        least = keys.amin(dim=1, keepdim=True)
        first = ids.masked_fill(keys != least, NO_KEY).amin(dim=1, keepdim=True)
        keys = keys.masked_fill((keys == least) & (ids == first), NO_KEY)
        found_keys.append(least)
        found_ids.append(first.masked_fill(least == NO_KEY, -1))
    return torch.cat(found_keys, dim=1), torch.cat(found_ids, dim=1)
