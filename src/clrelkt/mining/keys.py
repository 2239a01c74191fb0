"""Random numbers that depend on a seed and a place alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["mixed", "random_words"]


def random_words(
    seed: int | Sequence[int], stream: int, first: int, count: int, device: torch.device
) -> torch.Tensor:
    """Return random int32 numbers for the places from ``first`` on, shape (count,).

    A place gets the same number whichever range it is asked for in; each ``stream`` has numbers
    of its own.
    """
    base = int(np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)[0])
    places = torch.arange(first, first + count, dtype=torch.int64, device=device)
    # Steps of SplitMix64's own odd constant, from a start that the seed draws.
    numbers = mixed(places * _signed(0x9E3779B97F4A7C15) + _signed(base))
    return (numbers >> 16).to(torch.int32)


def mixed(numbers: torch.Tensor) -> torch.Tensor:
    """Scramble int64 numbers (the last steps of SplitMix64); the results lie in [0, 2**62)."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _signed(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ _shifted(numbers, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(numbers ^ _shifted(numbers, 31), 2)


def _shifted(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift to the right, filling with zeros; torch fills with the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
