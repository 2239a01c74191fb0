"""What passes through a transformer's layers have in common, whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch

__all__ = ["WayBack", "layer_runs", "wanted_gradients"]

_AT_ONCE = 4
"""Layers that are one function: several processes add up gradients while the ones before go on."""

Kept = TypeVar("Kept")


class WayBack(Generic[Kept]):
    """What a pass leaves for its way back, which it goes once and with the same parameters."""

    def __init__(self, kept: Kept, parameters: Sequence[torch.Tensor]) -> None:
        self._kept: Kept | None = kept
        self._parameters = parameters
        self._versions = self._now()

    def take(self) -> Kept:
        """Return what was left; it is no longer held.

        Raises:
            RuntimeError: it was taken before, or a parameter has been changed since.
        """
        if self._kept is None:
            raise RuntimeError("going back through the same layers a second time is not possible")
        if self._versions != self._now():
            raise RuntimeError("a parameter was changed between the ways there and back")
        kept, self._kept = self._kept, None
        return kept

    def _now(self) -> list[int]:
        return [part._version for part in self._parameters]


def layer_runs(layers: int) -> list[slice]:
    """Cut layers into runs of those that are one function."""
    return [slice(start, start + _AT_ONCE) for start in range(0, layers, _AT_ONCE)]


def wanted_gradients(
    found: Sequence[torch.Tensor], needed: Sequence[bool]
) -> tuple[torch.Tensor | None, ...]:
    """Return the parameters' gradients, None for those that need none.

    ``needed`` tells it of all inputs of a function, of which the parameters are the last.
    """
    own = needed[-len(found) :]
    return tuple(part if need else None for part, need in zip(found, own, strict=True))
