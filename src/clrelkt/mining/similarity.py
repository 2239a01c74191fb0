"""Dot products that come out the same everywhere."""

from __future__ import annotations

import torch

__all__ = ["GRID", "on_grid"]

GRID = 2.0**-24
"""Vectors are rounded to multiples of this before they are compared."""


def on_grid(vectors: torch.Tensor) -> torch.Tensor:
    """Return unit vectors as float64, every number rounded to a multiple of ``GRID``.

    Dot products of such vectors are exact: a product is a multiple of 2**-48, no partial sum
    exceeds 1, and float64 holds 53 bits. Hence a score does not depend on how a matrix is cut
    into blocks, on the BLAS library or on the device, and equal vectors get equal scores. The
    rounding is of the size of float32's own.
    """
    return vectors.to(torch.float64, copy=True).div_(GRID).round_().mul_(GRID)
