"""Memory that is used again once no tensor lies in it."""

from __future__ import annotations

import pickle
import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.encoders.transformer.kept_memory import KeptMemory

LARGE = 1 << 17


def test_memory_is_used_again_once_no_tensor_lies_in_it() -> None:
    memory = KeptMemory()
    first = memory.empty(2, LARGE, dtype=torch.float32)
    view = first[1].unsqueeze(0)
    place = first.data_ptr()
    del first
    other = memory.empty(2, LARGE, dtype=torch.float32)
    assert other.data_ptr() != place
    del view
    again = memory.empty(LARGE, 4, dtype=torch.bfloat16)
    assert again.data_ptr() == place
    assert again.shape == (LARGE, 4)
    assert again.dtype == torch.bfloat16


def test_tensors_are_aligned_and_small_ones_are_not_kept() -> None:
    memory = KeptMemory()
    assert all(memory.empty(LARGE + n, dtype=torch.uint8).data_ptr() % 64 == 0 for n in range(3))
    held = memory.free_bytes
    memory.empty(5, dtype=torch.float32)
    assert memory.free_bytes == held


def test_what_is_too_small_is_replaced_and_all_can_be_released() -> None:
    memory = KeptMemory()
    for size in range(LARGE, 3 * LARGE, LARGE // 4):
        memory.empty(size, dtype=torch.uint8)
    assert memory.free_bytes < 1.2 * 3 * LARGE
    memory.release()
    assert memory.free_bytes == 0


def test_a_pickled_one_begins_without_memory() -> None:
    memory = KeptMemory()
    memory.empty(LARGE, dtype=torch.float32)
    assert pickle.loads(pickle.dumps(memory)).free_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=40))
def test_no_two_tensors_share_memory(steps: list[tuple[int, int]]) -> None:
    memory = KeptMemory()
    held: dict[int, torch.Tensor] = {}
    for number, (place, size) in enumerate(steps):
        held.pop(place, None)
        held[place] = memory.empty(size, LARGE, dtype=torch.uint8).fill_(number)
        for own in held.values():
            assert (own == own[0, 0]).all()
    assert len({int(own[0, 0]) for own in held.values()}) == len(held)


def test_threads_at_once() -> None:
    memory = KeptMemory()
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            own = memory.empty(LARGE, dtype=torch.uint8).fill_(number)
            if not (own == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
