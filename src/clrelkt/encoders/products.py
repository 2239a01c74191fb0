"""Products of matrices on a CPU, in float32 by the faster of PyTorch's two libraries.

PyTorch multiplies by MKL, which uses half the width of an AMD processor's AVX-512 units; oneDNN,
which PyTorch brings along as well, uses all of it. It prepares itself once for every shape, which
takes longer than a small product: that of few rows stays with MKL.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clrelkt.encoders.transformer.kept_memory import Empty

__all__ = [
    "add_product",
    "added_product",
    "linear",
    "linear_without_gradients",
    "onednn_is_faster",
    "product",
    "turned_product",
]

_FEWEST_ROWS = 64
_CPUS = Path("/proc/cpuinfo")


def onednn_is_faster(left: torch.Tensor, *right: torch.Tensor) -> bool:
    """Whether products of ``left`` (rows, inner) with others are for oneDNN.

    That depends on the machine, on types, and on the number of rows; nothing is timed, so that
    results are the same again.
    """
    return (
        left.shape[0] >= _FEWEST_ROWS
        and all(own.device.type == "cpu" and own.dtype == torch.float32 for own in (left, *right))
        and not torch.is_autocast_enabled("cpu")
        and _has_wide_amd()
    )


@functools.cache
def _has_wide_amd() -> bool:
    try:
        amd = "AuthenticAMD" in _CPUS.read_text(encoding="utf-8")
    except OSError:
        return False
    if not amd or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    one = torch.ones(2, 2)
    try:
        return torch.equal(add_product(one, one, one), one + 2) and torch.equal(
            _onednn(one, one, None), one + one
        )
    except (AttributeError, RuntimeError):
        return False


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``total`` + ``left`` ``right``.T by oneDNN; no gradients.

    ``left`` has shape (rows, inner), ``right`` (columns, inner), ``total`` (rows, columns).
    """
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(left, total, right, None, "add")
    return found


def linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``states`` ``weight``.T + ``bias``, shape (rows, output).

    ``states`` has shape (rows, input), ``weight`` (output, input), ``bias`` (output,).
    """
    if not onednn_is_faster(states, weight):
        return functional.linear(states, weight, bias)
    found: torch.Tensor = _Linear.apply(states, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(states, weight)
        return _onednn(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        for_states, for_weight, for_bias = ctx.needs_input_grad
        return (
            _onednn(gradient, weight.T, None) if for_states else None,
            _turned_product(gradient, states) if for_weight else None,
            gradient.sum(0) if for_bias else None,
        )


def linear_without_gradients(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, empty: Empty
) -> torch.Tensor:
    """Return what ``linear`` does, in memory of ``empty`` where the library can write there."""
    if onednn_is_faster(states, weight):
        return _onednn(states, weight, bias)
    found = empty(states.shape[0], weight.shape[0], dtype=states.dtype)
    return torch.addmm(bias, states, weight.T, out=found)


def product(left: torch.Tensor, right: torch.Tensor, empty: Empty) -> torch.Tensor:
    """Return ``left`` (rows, inner) times ``right`` (inner, columns); no gradients."""
    if onednn_is_faster(left, right):
        return _onednn(left, right.T, None)
    return torch.mm(left, right, out=empty(left.shape[0], right.shape[1], dtype=left.dtype))


def added_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``total`` + ``left`` ``right``, in ``total``'s memory or not; no gradients."""
    if onednn_is_faster(left, right, total):
        return add_product(total, left, right.T)
    return total.addmm_(left, right)


def turned_product(left: torch.Tensor, right: torch.Tensor, to: torch.Tensor, empty: Empty) -> None:
    """Put ``left``.T ``right`` into ``to``, which may be of a more precise type; no gradients."""
    if onednn_is_faster(left, right, to):
        to.copy_(_turned_product(left, right))
    elif left.dtype == to.dtype:
        torch.mm(left.T, right, out=to)
    else:
        to.copy_(torch.mm(left.T, right, out=empty(*to.shape, dtype=left.dtype)))


def _turned_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``left``.T ``right``; PyTorch copies the one that comes first: the smaller."""
    if left.shape[1] <= right.shape[1]:
        return _onednn(left.T, right.T, None)
    return _onednn(right.T, left.T, None).T.contiguous()


def _onednn(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return found
