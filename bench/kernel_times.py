"""Which kernels a GPU's time goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Shares", "gpu_gaps", "gpu_shares", "show_kernels"]

_LINES = 45
_NAME = 100
_SHORT = 44


def show_kernels(work: Callable[[], object], steps: int) -> None:
    """Do ``work``, which is so many steps, and print the kernels that take most of a step."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    on_gpu = torch.cuda.is_available()
    events = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in found.key_averages()
        if not on_gpu or _is_kernel(event)
    ]
    total = sum(microseconds for microseconds, _ in events)
    print(f"{'GPU' if on_gpu else 'CPU'}: {total / 1e3 / steps:.2f} ms a step")
    for microseconds, event in sorted(events, key=lambda pair: -pair[0])[:_LINES]:
        spent = f"{microseconds / 1e3 / steps:>9.3f} ms {microseconds / max(total, 1):>5.1%}"
        print(f"{spent} {event.count / steps:>7.1f}  {event.key[:_NAME]}")


@dataclass(frozen=True)
class Shares:
    """Milliseconds in which a GPU computed, exchanged, did both, and did neither."""

    computing: float
    exchanging: float
    both: float
    neither: float


def gpu_shares(found: Any) -> Shares:
    """Return what the GPU of a profile did between its first and its last kernel.

    What is called after NCCL is exchange, whoever waits for whom in it.
    """
    kinds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for event in found.events():
        if _is_kernel(event):
            times = event.time_range
            kinds["nccl" in event.name.lower()].append((times.start, times.end))
    exchange, compute = _united(kinds[True]), _united(kinds[False])
    either = _united(kinds[True] + kinds[False])
    lengths = [sum(end - start for start, end in own) / 1e3 for own in (compute, exchange, either)]
    whole = (either[-1][1] - either[0][0]) / 1e3
    return Shares(lengths[0], lengths[1], lengths[0] + lengths[1] - lengths[2], whole - lengths[2])


def gpu_gaps(found: Any) -> list[tuple[float, int, str]]:
    """Return in which gaps a GPU of a profile did nothing, the longest in all first.

    Each is milliseconds in all, how many there were, and between which two kernels.
    """
    events = [
        (event.time_range.start, event.time_range.end, event.name[:_SHORT])
        for event in found.events()
        if _is_kernel(event)
    ]
    gaps: dict[str, list[float]] = {}
    last, before = float("inf"), ""
    for start, end, name in sorted(events):
        if start > last:
            gaps.setdefault(f"{before} > {name}", []).append((start - last) / 1e3)
        if end > last or not before:
            last, before = end, name
    return sorted(((sum(own), len(own), name) for name, own in gaps.items()), reverse=True)


def _is_kernel(event: Any) -> bool:
    """Whether an event is something that a GPU did."""
    return event.device_type.name == "CUDA" and not event.is_user_annotation


def _united(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
