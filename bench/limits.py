"""What the hardware can do at most, measured here: matrix products and copies."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from harness import timed

__all__ = ["Limits", "measure_limits", "peak_memory", "settled"]

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """FLOP a second of large matrix products, and bytes a second read and written by a copy."""

    flop: float
    bytes: float

    def seconds(self, flop: float, moved: float) -> float:
        """Return the least time of work that computes ``flop`` and moves ``moved`` bytes."""
        return max(flop / self.flop, moved / self.bytes)


def measure_limits(device: str, dtype: torch.dtype) -> Limits:
    """Measure both on ``device``; float32 products as the training loop has them (TF32)."""
    large = torch.device(device).type == "cuda"
    size = 8192 if large else 1024
    first, second = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    numbers = 268_435_456 if large else 16_777_216
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    products = settled(lambda: first @ second)
    copies = settled(lambda: target.copy_(source))
    return Limits(2 * size**3 / products, 2 * source.nbytes / copies)


def settled(work: Callable[[], object], repeats: int = 10) -> float:
    """Return the seconds of one ``work``, the median of rounds of several, once it is warm."""
    many = repeats if torch.cuda.is_available() else 1
    timed(work)

    def together() -> None:
        for _ in range(many):
            work()

    return statistics.median(timed(together) for _ in range(_ROUNDS)) / many


def peak_memory(device: str) -> int | None:
    """Return the most bytes that tensors have taken on a GPU since the last reset."""
    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device)
