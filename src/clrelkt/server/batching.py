"""Requests that wait together are worked on together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BatcherClosedError", "MicroBatcher", "QueueFullError"]

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class QueueFullError(Exception):
    """As many requests wait as may."""


class BatcherClosedError(Exception):
    """No more requests are taken."""


@dataclass(slots=True)
class _Entry(Generic[Asked, Answered]):
    asked: Asked
    future: asyncio.Future[Answered]


class MicroBatcher(Generic[Asked, Answered]):
    """One thread that takes whatever waits, up to ``largest``, and works on it at once.

    Nothing is waited for: a single request is worked on alone and at once, and while it is, those
    that come meanwhile gather for the next batch. The busier the server, the larger the batches.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Answered]],
        *,
        largest: int,
        waiting: int,
        name: str,
    ) -> None:
        """Start the thread; call it within the running event loop.

        Args:
            work: answers a batch, one answer a request in order; runs on the thread.
            largest: requests of a batch, at most.
            waiting: requests that may wait, at most; more are refused.
            name: of the thread.
        """
        self._work = work
        self._largest = largest
        self._limit = waiting
        self._loop = asyncio.get_running_loop()
        self._ready = threading.Condition()
        self._waiting: deque[_Entry[Asked, Answered]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def ask(self, asked: Asked) -> asyncio.Future[Answered]:
        """Put a request behind those that wait; the future holds its answer.

        Raises:
            QueueFullError: too many wait.
            BatcherClosedError: the batcher is closed.
        """
        with self._ready:
            if self._closed:
                raise BatcherClosedError
            if len(self._waiting) >= self._limit:
                raise QueueFullError
            future: asyncio.Future[Answered] = self._loop.create_future()
            self._waiting.append(_Entry(asked, future))
            self._ready.notify()
        return future

    async def close(self) -> None:
        """Take no more requests, and return when those that wait are answered."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        await asyncio.to_thread(self._thread.join)
        # The last answers are on their way to the loop; let them arrive.
        await asyncio.sleep(0)

    def _run(self) -> None:
        while batch := self._take():
            self._answer(batch)

    def _take(self) -> list[_Entry[Asked, Answered]]:
        """Wait for requests and take them; none when the batcher is closed and all are done."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            count = min(self._largest, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def _answer(self, batch: Sequence[_Entry[Asked, Answered]]) -> None:
        outcomes: list[Answered | Exception]
        try:
            outcomes = list(self._work([entry.asked for entry in batch]))
        except Exception as error:  # Whatever it is, the thread must go on for the others.
            # What one request has done shall not befall those beside it.
            outcomes = [error] if len(batch) == 1 else [self._alone(entry) for entry in batch]
        self._loop.call_soon_threadsafe(_deliver, batch, outcomes)

    def _alone(self, entry: _Entry[Asked, Answered]) -> Answered | Exception:
        try:
            return self._work([entry.asked])[0]
        except Exception as error:
            return error


def _deliver(
    batch: Sequence[_Entry[Asked, Answered]], outcomes: Sequence[Answered | Exception]
) -> None:
    for entry, outcome in zip(batch, outcomes, strict=True):
        if entry.future.done():  # The client has gone.
            continue
        if isinstance(outcome, Exception):
            entry.future.set_exception(outcome)
        else:
            entry.future.set_result(outcome)
