"""Which kernels a GPU's time goes to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["show_kernels"]

_LINES = 45
_NAME = 100


def show_kernels(work: Callable[[], object], steps: int) -> None:
    """Do ``work``, which is so many steps, and print the kernels that take most of a step."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    on_gpu, cuda = torch.cuda.is_available(), torch.autograd.DeviceType.CUDA
    events = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in found.key_averages()
        if not on_gpu or (event.device_type == cuda and not event.is_user_annotation)
    ]
    total = sum(microseconds for microseconds, _ in events)
    print(f"{'GPU' if on_gpu else 'CPU'}: {total / 1e3 / steps:.2f} ms a step")
    for microseconds, event in sorted(events, key=lambda pair: -pair[0])[:_LINES]:
        spent = f"{microseconds / 1e3 / steps:>9.3f} ms {microseconds / max(total, 1):>5.1%}"
        print(f"{spent} {event.count / steps:>7.1f}  {event.key[:_NAME]}")
