"""How many cores there are to work with."""

from __future__ import annotations

import os
import sys

__all__ = ["cores"]


def cores() -> int:
    """Return how many cores this process may use, which may be fewer than there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
