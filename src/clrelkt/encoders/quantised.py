"""Numbers in a few bits: whole codes times a scale.

A group of numbers that share a scale is rounded to multiples of it, from ``-levels`` to
``levels``; the scale is such that the largest number of the group keeps its size. The error of a
number is at most half a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from clrelkt.errors import EncoderError

__all__ = ["Quantised", "quantise_columns", "quantise_rows"]


@dataclass(frozen=True, slots=True)
class Quantised:
    """Codes of ``bits`` bits, and their scales.

    ``codes`` has shape (rows, bytes): each row's codes lie one behind the other, most significant
    bit first, and end with a whole byte. ``scales`` is float32, of shape (rows,) where ``by_row``,
    else (columns,). ``shape`` is what the numbers have.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    bits: int
    shape: tuple[int, ...]
    by_row: bool

    def restored(self) -> torch.Tensor:
        """Return the numbers, float32, of the shape that they had.

        Raises:
            EncoderError: codes, scales and shape do not fit each other.
        """
        rows, width = _as_matrix(self.shape)
        expected = (rows, _bytes(width, self.bits))
        scales = (rows,) if self.by_row else (width,)
        if tuple(self.codes.shape) != expected or tuple(self.scales.shape) != scales:
            raise EncoderError(
                f"quantised numbers of shape {self.shape}: codes {tuple(self.codes.shape)}, "
                f"expected {expected}; scales {tuple(self.scales.shape)}"
            )
        codes = torch.from_numpy(_unpacked(self.codes.numpy(), self.bits, width))
        factors = self.scales.unsqueeze(1) if self.by_row else self.scales
        return (codes * factors).reshape(self.shape)


def quantise_rows(numbers: torch.Tensor, bits: int) -> Quantised:
    """Quantise a matrix, shape (rows, width), with a scale for each row."""
    return _quantise(numbers, numbers.abs().amax(1), bits, by_row=True)


def quantise_columns(numbers: torch.Tensor, bits: int) -> Quantised:
    """Quantise an array with a scale for each place of its last axis: each output of a layer."""
    flat = numbers.reshape(-1, numbers.shape[-1])
    return _quantise(numbers, flat.abs().amax(0), bits, by_row=False)


def _quantise(
    numbers: torch.Tensor, largest: torch.Tensor, bits: int, *, by_row: bool
) -> Quantised:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: 2 to 8 expected")
    levels = 2 ** (bits - 1) - 1
    scales = (largest.float() / levels).clamp_min(torch.finfo(torch.float32).tiny)
    matrix = numbers.float().reshape(_as_matrix(tuple(numbers.shape)))
    ratio = matrix / (scales.unsqueeze(1) if by_row else scales)
    codes = ratio.round_().clamp_(-levels, levels).to(torch.int8)
    packed = torch.from_numpy(_packed(codes.numpy(), bits))
    return Quantised(packed, scales, bits, tuple(numbers.shape), by_row)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, shape[-1]


def _bytes(width: int, bits: int) -> int:
    return -(-width * bits // 8)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    unsigned = (codes + np.int8(2 ** (bits - 1) - 1)).view(np.uint8)
    if bits == 8:
        return unsigned
    apart = np.unpackbits(unsigned[:, :, None], axis=2)[:, :, 8 - bits :]
    return np.packbits(apart.reshape(codes.shape[0], codes.shape[1] * bits), axis=1)


def _unpacked(packed: np.ndarray, bits: int, width: int) -> np.ndarray:
    if bits == 8:
        unsigned = packed
    else:
        together = np.unpackbits(packed, axis=1, count=width * bits)
        apart = together.reshape(packed.shape[0], width, bits)
        padded = np.zeros((packed.shape[0], width, 8), np.uint8)
        padded[:, :, 8 - bits :] = apart
        unsigned = np.packbits(padded, axis=2)[:, :, 0]
    return unsigned.astype(np.float32) - np.float32(2 ** (bits - 1) - 1)
