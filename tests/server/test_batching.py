"""The micro-batcher: what waits is worked on together, within bounds, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from clrelkt.server.batching import BatcherClosedError, MicroBatcher, QueueFullError


class Doubler:
    """Doubles numbers; the first batch waits until it may go on. A negative number fails."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.busy = threading.Event()
        self.go = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.busy.set()
        assert self.go.wait(20)
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is negative")
        return [2 * number for number in numbers]


def run(
    test: Callable[[MicroBatcher[int, int], Doubler], Awaitable[None]],
    *,
    largest: int = 4,
    waiting: int = 8,
) -> None:
    """Run ``test`` with a batcher whose first batch (of the number 0) is under way."""

    async def main() -> None:
        work = Doubler()
        batcher = MicroBatcher(work, largest=largest, waiting=waiting, name="test")
        first = batcher.ask(0)
        await asyncio.to_thread(work.busy.wait, 20)
        try:
            await test(batcher, work)
        finally:
            work.go.set()
            await batcher.close()
        assert await first == 0

    asyncio.run(main())


def test_what_comes_meanwhile_is_one_batch() -> None:
    async def test(batcher: MicroBatcher[int, int], work: Doubler) -> None:
        asked = [batcher.ask(number) for number in (1, 2, 3)]
        work.go.set()
        assert await asyncio.gather(*asked) == [2, 4, 6]
        assert work.batches == [[0], [1, 2, 3]]

    run(test)


def test_a_batch_is_not_larger_than_the_largest() -> None:
    async def test(batcher: MicroBatcher[int, int], work: Doubler) -> None:
        asked = [batcher.ask(number) for number in range(1, 7)]
        work.go.set()
        assert await asyncio.gather(*asked) == [2, 4, 6, 8, 10, 12]
        assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]

    run(test)


def test_a_full_queue_refuses() -> None:
    async def test(batcher: MicroBatcher[int, int], work: Doubler) -> None:
        asked = [batcher.ask(number) for number in range(8)]
        assert len(batcher) == 8
        with pytest.raises(QueueFullError):
            batcher.ask(8)
        work.go.set()
        assert await asyncio.gather(*asked) == [2 * number for number in range(8)]
        assert await batcher.ask(9) == 18

    run(test)


def test_a_request_that_fails_leaves_those_beside_it_alone() -> None:
    async def test(batcher: MicroBatcher[int, int], work: Doubler) -> None:
        asked = [batcher.ask(number) for number in (1, -2, 3)]
        work.go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[0] == 2
        assert str(found[1]) == "-2 is negative"
        assert found[2] == 6
        assert batcher.alive

    run(test)


def test_a_client_that_has_gone_is_passed_over() -> None:
    async def test(batcher: MicroBatcher[int, int], work: Doubler) -> None:
        gone, stays = batcher.ask(1), batcher.ask(2)
        gone.cancel()
        work.go.set()
        assert await stays == 4

    run(test)


def test_closing_answers_what_waits() -> None:
    async def main() -> None:
        work = Doubler()
        batcher = MicroBatcher(work, largest=2, waiting=8, name="test")
        asked = [batcher.ask(number) for number in range(5)]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(BatcherClosedError):
            batcher.ask(9)
        work.go.set()
        await closing
        assert [future.result() for future in asked] == [0, 2, 4, 6, 8]
        assert not batcher.alive

    asyncio.run(main())
