"""Sums over groups of rows: the rows of a token, the rows of a text.

An embedding bag adds up a group's rows one after the other. On a GPU the most frequent token of a
large batch, with tens of thousands of rows, then takes longer than all the others together, so a
sum is taken in two steps of at most ``PART`` rows each; always in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

__all__ = ["PART", "RowGroups"]

PART = 128


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Rows in groups: ``members`` (tokens,) names them, one group's behind the other's.

    ``parts`` says where each run of at most ``PART`` members begins and ``groups`` (groups,) where
    each group begins among the parts; None: each part is a group. Parts behind the last are empty.
    """

    members: torch.Tensor
    parts: torch.Tensor
    groups: torch.Tensor | None

    @classmethod
    def of(cls, members: torch.Tensor, counts: torch.Tensor) -> RowGroups:
        """Divide ``members`` into groups of the given sizes (groups,), which add up to them."""
        device, tokens = members.device, members.shape[0]
        part_ends = (-(-counts // PART)).cumsum(0)
        first_parts = functional.pad(part_ends, (1, 0))[:-1]
        numbers = torch.arange(tokens // PART + counts.shape[0], device=device)
        group = torch.searchsorted(part_ends, numbers, right=True)
        group = group.clamp_max_(max(counts.shape[0] - 1, 0))
        begins = (counts.cumsum(0) - counts)[group] + PART * (numbers - first_parts[group])
        return cls(members, begins.clamp_max_(tokens), first_parts)

    @classmethod
    def undivided(cls, members: torch.Tensor, counts: torch.Tensor) -> RowGroups:
        """Leave groups of the given sizes (groups,) whole, which is best on a CPU."""
        return cls(members, counts.cumsum(0) - counts, None)

    def sum(
        self,
        table: torch.Tensor,
        members: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sum of ``table``'s rows over each group, shape (groups, width).

        ``members`` (tokens,) may name other rows in the same order; ``weights`` (tokens,) are the
        members' factors.
        """
        chosen = self.members if members is None else members
        partial = functional.embedding_bag(
            chosen,
            table,
            self.parts,
            mode="sum",
            per_sample_weights=None if weights is None else weights.to(table.dtype),
        )
        if self.groups is None:
            return partial
        numbers = torch.arange(self.parts.shape[0], device=table.device)
        return functional.embedding_bag(numbers, partial, self.groups, mode="sum")
