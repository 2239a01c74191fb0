"""Parameters in the precision that a network computes in, all copied at once.

A copy of each parameter by itself would be hundreds of small kernels a step, forward and backward;
that is most of the time that a small batch takes on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

__all__ = ["WorkingCopies"]


class WorkingCopies:
    """The working copies of a model's parameters, for one forward pass.

    Groups of several parameters are joined along their first dimension. On a CPU in float32
    nothing is copied, and parameters stand for themselves.
    """

    def __init__(
        self,
        groups: Sequence[tuple[torch.nn.Parameter, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dtype = dtype
        self._copies: dict[int, torch.Tensor] = {}
        self._joined: dict[int, torch.Tensor] = {}
        if device.type == "cpu" and dtype == torch.float32:
            return
        parameters = [parameter for group in groups for parameter in group]
        made = _CopyAll.apply(dtype, tuple(len(group) for group in groups), *parameters)  # type: ignore[no-untyped-call]
        for group, copied in zip(groups, made, strict=True):
            kept = self._copies if len(group) == 1 else self._joined
            kept[id(group[0])] = copied

    def __call__(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return the copy of a parameter."""
        return self._copies.get(id(parameter), parameter)

    def joined(self, first: torch.nn.Parameter) -> torch.Tensor | None:
        """Return the copy of the group that begins with ``first``; None where nothing is joined."""
        return self._joined.get(id(first))

    def add_norm(
        self,
        states: torch.Tensor,
        added: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        """Return the LayerNorm of a sum, shape (tokens, width)."""
        return functional.layer_norm(states + added, weight.shape, weight, bias, epsilon)


class _CopyAll(torch.autograd.Function):
    """Copies of parameters in another precision, and their gradients back, in few kernels."""

    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, sizes: tuple[int, ...], *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.sizes = sizes
        ctx.shapes = [parameter.shape for parameter in parameters]
        ctx.kinds = [parameter.dtype for parameter in parameters]
        made, parts = _rooms(sizes, list(parameters), dtype)
        torch._foreach_copy_(parts, list(parameters))
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        found: list[torch.Tensor | None] = []
        sources: list[torch.Tensor] = []
        targets: list[torch.Tensor] = []
        first = 0
        for size, gradient in zip(ctx.sizes, gradients, strict=True):
            shapes = ctx.shapes[first : first + size]
            kinds = ctx.kinds[first : first + size]
            first += size
            if gradient is None:
                found += [None] * size
                continue
            for part, kind in zip(
                torch.split(gradient, [shape[0] for shape in shapes]), kinds, strict=True
            ):
                target = torch.empty_like(part, dtype=kind, memory_format=torch.contiguous_format)
                sources.append(part)
                targets.append(target)
                found.append(target)
        if targets:
            torch._foreach_copy_(targets, sources)
        return None, None, *found


def _rooms(
    sizes: Sequence[int], parameters: list[torch.Tensor], dtype: torch.dtype
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return empty tensors for the groups, and the part of each parameter within them."""
    made: list[torch.Tensor] = []
    parts: list[torch.Tensor] = []
    first = 0
    for size in sizes:
        group = parameters[first : first + size]
        first += size
        rows = [parameter.shape[0] for parameter in group]
        room = group[0].new_empty((sum(rows), *group[0].shape[1:]), dtype=dtype)
        made.append(room)
        parts += torch.split(room, rows)
    return made, parts
