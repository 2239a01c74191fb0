"""The processes that carry out one run together, one a GPU.

All of them do the same things in the same order with the same seeds. They share out what is
encoded, and add up what it teaches; files are written by the first alone.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from clrelkt.errors import LostProcessError, SettingsError
from clrelkt.training.device import choose_device

__all__ = [
    "ProcessGroup",
    "balanced_shares",
    "is_first_process",
    "process_group",
    "processes_asked_for",
]

Value = TypeVar("Value")

_PATIENCE = timedelta(minutes=30)
_ONE_BY_ONE = 256


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's place among those of its run; alone where ``size`` is 1.

    ``device`` is where it computes, and where tensors that are exchanged must lie.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        # A barrier of NCCL would need to be told the device; a sum has it.
        self.add_up(torch.zeros(1, device=self.device))

    def gather(self, own: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Return the rows of all processes, one process's behind the other's.

        ``own`` has shape (counts[rank], ...) and is detached; ``counts`` (size,) is the same
        everywhere.
        """
        if self.size == 1:
            return own
        longest = max(counts)
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        found = own.new_empty(self.size, *padded.shape)
        with _lost_process():
            dist.all_gather(list(found.unbind(0)), padded)
        return torch.cat([found[rank, :count] for rank, count in enumerate(counts)])

    def add_up(self, tensor: torch.Tensor) -> None:
        """Put the sum over all processes in the place of ``tensor``."""
        if self.size > 1:
            with _lost_process():
                dist.all_reduce(tensor)

    def start_adding_up(self, tensor: torch.Tensor) -> dist.Work | None:
        """Begin what ``add_up`` does; it is done after the returned work's ``wait``."""
        if self.size == 1:
            return None
        with _lost_process():
            work: dist.Work | None = dist.all_reduce(tensor, async_op=True)
            return work

    def finish(self, work: dist.Work | None) -> None:
        """Wait for what ``start_adding_up`` began."""
        if work is not None:
            with _lost_process():
                work.wait()

    def same(self, value: Value) -> Value:
        """Return the first process's ``value``, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        with _lost_process():
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put the first process's values into the tensors of the others."""
        if self.size > 1:
            with _lost_process():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)


@contextmanager
def _lost_process() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostProcessError(
            "another process of this run has ended; its own message says why. Start all of them "
            "again with --resume"
        ) from error


def processes_asked_for() -> int:
    """Return how many processes torchrun (or ``clrelkt train --gpus``) has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Tell whether this is the first of them, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: str | None) -> Iterator[ProcessGroup]:
    """Join the other processes of the run while the block runs; alone where there are none.

    ``device`` is what the user named; where it is no single GPU, each process takes its own.

    Raises:
        SettingsError: there is no such device, or there are more processes than GPUs.
    """
    size = processes_asked_for()
    if size == 1:
        yield ProcessGroup(device=choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = _own_gpu()
        torch.cuda.set_device(chosen)
    joined = not dist.is_initialized()
    if joined:
        with _lost_process():
            dist.init_process_group(
                "nccl" if chosen.type == "cuda" else "gloo",
                timeout=_PATIENCE,
                device_id=chosen if chosen.type == "cuda" else None,
            )
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if joined:
            dist.destroy_process_group()


def _own_gpu() -> torch.device:
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise SettingsError(
            f"process {number} of this machine has no GPU: torch finds {count}. Start as many "
            "processes as there are GPUs"
        )
    return torch.device("cuda", number)


def balanced_shares(lengths: Sequence[int] | np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide texts of the given lengths (texts,) into ``parts`` of about the same total length.

    The longest are given out first, each to the part that has the least; the many short ones fill
    up what the parts lack. Returns the numbers of the texts of each part in ascending order, int64.
    """
    if parts == 1:
        return [np.arange(len(lengths))]
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    owner = np.empty(len(lengths), dtype=np.int64)
    least = [(0, part) for part in range(parts)]
    for text in order[:_ONE_BY_ONE].tolist():
        total, part = heapq.heappop(least)
        owner[text] = part
        heapq.heappush(least, (total + int(lengths[text]), part))
    rest = np.sort(order[_ONE_BY_ONE:])
    if len(rest):
        totals = np.array([total for total, _ in sorted(least, key=lambda item: item[1])])
        lacking = (_filled(totals, int(lengths[rest].sum())) - totals).clip(0).cumsum()
        middles = lengths[rest].cumsum() - lengths[rest] / 2
        owner[rest] = np.searchsorted(lacking, middles).clip(max=parts - 1)
    return [np.flatnonzero(owner == part) for part in range(parts)]


def _filled(totals: np.ndarray, more: int) -> float:
    """Return the level that ``totals`` reach when ``more`` is poured over them."""
    ordered = np.sort(totals)
    levels = (ordered.cumsum() + more) / np.arange(1, len(totals) + 1)
    # The lowest ones are filled up to the first that stands above their level.
    full = np.flatnonzero(np.append(ordered[1:], np.inf) >= levels)[0]
    return float(levels[full])
