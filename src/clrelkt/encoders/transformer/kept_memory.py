"""Memory of large tensors on a CPU that is used again, step by step.

The C library gives large pieces of memory back to the system once they are free. A training step
asks for hundreds of megabytes, and the system would hand them out anew, page by page and filled
with zeros, in every step.
"""

from __future__ import annotations

import bisect
import math
import threading
import weakref
from collections import deque
from typing import Protocol, Self

import numpy as np
import torch

__all__ = ["Empty", "KeptMemory", "new_memory"]

_ALIGNED = 64
_SMALLEST = 1 << 16
"""Bytes below which the C library keeps memory by itself."""
_SLACK = 1.125
_LARGEST_FIT = 2.0


class Empty(Protocol):
    """Makes a tensor on the CPU whose numbers are not set."""

    def __call__(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of ``shape``."""
        ...


def new_memory(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in memory of its own."""
    return torch.empty(shape, dtype=dtype)


class KeptMemory:
    """Blocks of memory; one is free again when no tensor lies in it any more.

    A copy of it begins without any.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._free: list[np.ndarray] = []
        self._returned: deque[np.ndarray] = deque()
        self._users: dict[int, weakref.ref[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    @property
    def free_bytes(self) -> int:
        """Size of the blocks in which no tensor lies."""
        with self._lock:
            self._take_back()
            return sum(self._sizes)

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor whose numbers are not set."""
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALLEST:
            return torch.empty(shape, dtype=dtype)
        with self._lock:
            self._take_back()
            # A tensor holds the view that it was made from.
            view = self._lent(self._fitting(size), size)
        return torch.from_numpy(view).view(dtype).view(shape)

    def release(self) -> None:
        """Give free blocks back to the system."""
        with self._lock:
            self._take_back()
            self._sizes.clear()
            self._free.clear()

    def _fitting(self, size: int) -> np.ndarray:
        place = bisect.bisect_left(self._sizes, size)
        if place < len(self._sizes) and self._sizes[place] <= size * _LARGEST_FIT:
            del self._sizes[place]
            block = self._free.pop(place)
        else:
            if place:
                # One that is too small for what is asked for now will be so in the next step, too.
                del self._sizes[place - 1], self._free[place - 1]
            block = _aligned(math.ceil(size * _SLACK))
        return block

    def _lent(self, block: np.ndarray, size: int) -> np.ndarray:
        """Return a view of a block, which comes back when nothing holds the view."""
        view = block[:size]
        key = id(view)

        def ended(_: object) -> None:
            # It may come from any thread, at any moment.
            self._returned.append(block)
            self._users.pop(key, None)

        self._users[key] = weakref.ref(view, ended)
        return view

    def _take_back(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            place = bisect.bisect_left(self._sizes, len(block))
            self._sizes.insert(place, len(block))
            self._free.insert(place, block)


def _aligned(size: int) -> np.ndarray:
    memory = np.empty(size + _ALIGNED, dtype=np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + size]
