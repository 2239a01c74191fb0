"""The Triton kernels, run by Triton's interpreter on a CPU; a process of its own starts this.

Triton reads TRITON_INTERPRET when it is imported, so that a process has one kind of kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

import clrelkt.mining.kernels as kernels
import clrelkt.mining.large as large
from clrelkt.mining import DenseMining, LargeMiner
from clrelkt.mining.kernels import Blocks, FusedScreen, TwoPassScreen
from clrelkt.mining.screening import Limits, PlainScreen, Screen, low_precision
from clrelkt.mining.similarity import on_grid

SMALL = Blocks(rows=16, columns=64, depth=64, group=2, per_processor=1)
SCREENS: dict[str, Screen] = {
    "fused": FusedScreen(SMALL),
    "one program a block": FusedScreen(replace(SMALL, per_processor=0)),
    "chained": FusedScreen(replace(SMALL, chained=True)),
    "pointers": FusedScreen(replace(SMALL, rows=32, tma=False)),
    "two passes": TwoPassScreen(20, 96),
}


def unit(rows: int, dimension: int, seed: int) -> torch.Tensor:
    made = torch.randn((rows, dimension), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=1)


def limits(rows: int, capped: bool, random: bool) -> Limits:
    def word(seed: int) -> torch.Tensor:
        made = torch.Generator().manual_seed(seed)
        return torch.randint(-(2**31), 2**31, (rows,), dtype=torch.int32, generator=made)

    low = torch.linspace(-0.1, 0.3, rows)
    plain = Limits(low, low + 0.1 if capped else None, low - 0.15, low - 0.05)
    if not random:
        return plain
    return replace(plain, row_key=word(1), hard_key=word(2), semi_key=word(3))


def pairs(found: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> set[tuple[int, int]]:
    every = [
        pair for row, column in found for pair in zip(row.tolist(), column.tolist(), strict=True)
    ]
    assert len(every) == len(set(every)), "a pair was yielded twice"
    return set(every)


def check_screens() -> None:
    questions, candidates = unit(20, 64, 0), unit(150, 64, 1)
    keys = torch.arange(150, dtype=torch.int32) * 28_000_000 - 2**31
    for capped in (False, True):
        for column_key in (None, keys):
            asked = limits(20, capped, column_key is not None)
            expected = pairs(PlainScreen()(questions, candidates, asked, column_key))
            assert len(expected) > 100
            names = SCREENS if capped else ("fused", "chained", "two passes")
            for name, screen in ((name, SCREENS[name]) for name in names):
                found = pairs(screen(questions, candidates, asked, column_key))
                assert found >= expected, f"{name}: {len(found)} for {len(expected)}"
                # Rounding may let a few more through, never fewer.
                assert len(found) <= len(expected) + 2, f"{name}: {len(found)}"


def check_exact_scores() -> None:
    questions, candidates = unit(9, 70, 2), unit(11, 70, 3)
    row, column = torch.arange(9).repeat(2), torch.arange(18) % 11
    expected = (on_grid(questions)[row] * on_grid(candidates)[column]).sum(dim=1)
    assert torch.equal(kernels.exact_scores(questions, candidates, row, column), expected)


def check_mining() -> None:
    candidates = unit(120, 12, 4)
    candidates[80:] = candidates[:40]
    gold = torch.arange(0, 120, 8)
    questions = torch.nn.functional.normalize(candidates[gold] + unit(len(gold), 12, 5), dim=1)
    document, text = torch.arange(120) // 3, torch.arange(120)
    gold = torch.stack((gold, (gold + 60) % 120), dim=1)
    nearest = DenseMining(hard=2, semi_hard=3, choose="nearest", false_negative_ratio=1.1)
    every = (
        nearest,
        replace(nearest, choose="random"),
        DenseMining(0, 4, margin=0.3, distance="euclidean", choose="nearest"),
        DenseMining(5, 0, choose="nearest"),
    )
    for settings, one_part in ((settings, one) for settings in every for one in (True, False)):
        plain = LargeMiner(candidates, document, text, settings, 0)
        expected = plain.mine(questions, gold)
        memory = None if one_part else 50 * large._bytes_of_a_candidate(12, torch.device("cpu"))
        for name in ("fused", "two passes") if settings is nearest else ("fused",):
            for large._MOST_KEPT in (64, 0) if one_part else (64,):
                screen = SCREENS[name]
                miner = LargeMiner(
                    candidates, document, text, settings, 0, screen=screen, memory=memory
                )
                found = miner.mine(questions, gold)
                assert torch.equal(found, expected), f"{name}, {settings}, {large._MOST_KEPT}"
        assert (expected >= 0).sum() > 15


def check_rounding() -> None:
    vectors, order = unit(9, 70, 6), torch.arange(8, -1, -1)
    expected, found = (low_precision(vectors, order, compiled=by) for by in (False, True))
    assert torch.equal(found.vectors, expected.vectors)
    torch.testing.assert_close(found.norm, expected.norm)
    half = torch.empty((9, 128), dtype=torch.float16)
    error, norm = kernels.round_rows(vectors, None, half)
    exact = torch.nn.functional.pad(on_grid(vectors), (0, 58))
    assert torch.equal(half, exact.half())
    torch.testing.assert_close(error, torch.linalg.vector_norm(exact - half.double(), dim=1))
    torch.testing.assert_close(norm, torch.linalg.vector_norm(half.double(), dim=1))


def main() -> None:
    large._FIRST = 16
    # So that lists overflow and are made anew.
    kernels._CAPACITY = 3
    kernels._UNPACKED = 2_000
    kernels._LISTED = 100
    check_screens()
    check_exact_scores()
    check_rounding()
    kernels._CAPACITY = 1
    check_mining()
    print("as expected")


if __name__ == "__main__":
    main()
