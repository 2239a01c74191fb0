"""mUSE's Triton kernels, run by Triton's interpreter on a CPU; a process of its own starts this.

Triton reads TRITON_INTERPRET when it is imported, so that a process has one kind of kernel. The
argument names a file of the network's tensors.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders.muse import encoder as muse
from clrelkt.encoders.muse.encoder import MuseNetwork
from clrelkt.encoders.muse.fused import FusedLayout, pool_rows
from clrelkt.encoders.muse.kernels import Tiles

SMALL = Tiles(rows=32, depth=64, lines=4, span=16, sum_lines=4, sum_places=4)
PART = 8
# Gaps, empty texts, one token only, a token of many parts, one of exactly one part, all tokens.
BATCHES = {
    "few": [[7, 5], [], [7, 1, 3], [2]],
    "frequent": [[3] * 30, [], [4, 3, 4] * 2, [3], [1] * 8, [0, 2, 5, 6, 8, 9, 10]],
}


class Fused:
    """What the network calls in place of what it would find on a GPU."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.calls = 0

    def chosen(self, table: torch.Tensor) -> torch.dtype:
        self.calls += 1
        return self.dtype

    def layout(self, batch: RaggedBatch, vocabulary: int) -> FusedLayout:
        return FusedLayout.of(batch, vocabulary, part=PART)


def results(network: MuseNetwork, batch: RaggedBatch) -> dict[str, torch.Tensor]:
    """Return the texts' sums and the gradients of a loss of them."""
    network.zero_grad()
    pooled = network._pool(batch)
    generator = torch.Generator().manual_seed(1)
    pull = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    (pooled.double() * pull).sum().backward()
    found = {"sums": pooled.detach()}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad
    return found


def check(network: MuseNetwork, texts: list[list[int]], dtype: torch.dtype, limit: float) -> None:
    batch = RaggedBatch.from_lists(texts)
    expected = results(network, batch)
    fused = Fused(dtype)
    instead = mock.patch.multiple(
        muse,
        fused_type=fused.chosen,
        FusedLayout=SimpleNamespace(of=fused.layout),
        pool_rows=partial(pool_rows, tiles=SMALL),
    )
    with instead, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = results(network, batch)
        with torch.no_grad():
            alone = network._pool(batch)
    assert fused.calls == 2
    found_alone = {"sums without gradients": alone}
    for name, value in (found | found_alone).items():
        right = expected[name.split()[0]]
        assert right.abs().sum() > 0
        error = (value - right).norm() / right.norm()
        assert error < limit, f"{name}, {dtype}: off by {error:.2g}"
    assert found.keys() == expected.keys()


def main() -> None:
    tensors = torch.load(Path(sys.argv[1]), weights_only=True)
    network = MuseNetwork({name: value.float() for name, value in tensors.items()})
    for texts in BATCHES.values():
        check(network, texts, torch.float32, 1e-5)
    check(network, BATCHES["frequent"], torch.float16, 6e-2)
    print("as expected")


if __name__ == "__main__":
    main()
