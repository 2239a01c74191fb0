"""Times of mUSE's Triton kernels, each with several ways to cut its work.

    python bench/muse_kernels.py
    python bench/muse_kernels.py --kernels token pool

The batch has texts of 8 to 60 made tokens, some tokens far more frequent than others. Each kernel
is timed by itself, with the rate that its operations or its bytes, counted once, come to, and with
how far what it returns is from what it returns as it is cut now.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders.muse import kernels
from clrelkt.encoders.muse.forward import BRANCHES
from clrelkt.encoders.muse.fused import FusedLayout
from clrelkt.encoders.muse.kernels import Tiles
from limits import settled

EMBEDDING = 512
NOW = Tiles()
PRODUCTS = [
    replace(NOW, rows=rows, depth=depth, warps=warps, stages=stages)
    for rows, depth, warps, stages in ((128, 64, 8, 3), (128, 32, 8, 4))
]
LINES = [replace(NOW, lines=lines) for lines in (2, 8)]
GRADIENT_CUTS = [replace(NOW, span=span) for span in (32, 64, 256)]
SUMS = [
    replace(NOW, sum_lines=lines, sum_places=places, sum_warps=warps)
    for lines, places, warps in ((2, 1, 1), (8, 1, 1), (16, 1, 4), (4, 2, 1), (2, 8, 4))
]
POOLS = [
    replace(NOW, pool_lines=lines, pool_warps=warps) for lines, warps in ((1, 2), (2, 1), (4, 4))
]


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel with its arguments, the ways to cut it, and what it computes and moves."""

    name: str
    run: Callable[[Tiles], object]
    tiles: list[Tiles]
    flop: float
    moved: float
    # Its arguments are not written over: it gives the same again.
    again: bool = True


def made_batch(tokens: int, vocabulary: int) -> RaggedBatch:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 61, (tokens // 34 + 1,), generator=generator)
    count = int(lengths.sum())
    # Ranks that are as frequent as in a language: about in inverse proportion.
    ids = (vocabulary ** torch.rand(count, generator=generator, dtype=torch.float64)).long() - 1
    return RaggedBatch(ids.clamp_(0, vocabulary - 1), lengths)


def works(arguments: argparse.Namespace) -> Iterator[Work]:
    device, vocabulary = torch.device("cuda"), arguments.vocabulary
    layout = FusedLayout.of(made_batch(arguments.tokens, vocabulary).to(device), vocabulary)
    groups = layout.groups
    assert groups is not None
    torch.manual_seed(0)

    def normal(*shape: int, kind: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(kind)

    rows, texts, exact = layout.slots.shape[0], layout.lengths.shape[0], torch.float32
    embedded, projected = normal(vocabulary, EMBEDDING), normal(vocabulary + 1, 768)
    projected[-1] = 0
    windows = [normal((vocabulary + 1) * size, 256) for size, _ in BRANCHES]
    seconds = [normal(size, 256, 256) * 0.03 for size, _ in BRANCHES]
    bias = normal(768, kind=exact)
    gradient = normal(texts, EMBEDDING + 768, kind=exact)
    sums, squares = embedded.float().sum(1), embedded.float().square().sum(1)
    hidden = kernels.first_convolution(layout.slots, windows, projected, bias, BRANCHES, NOW)
    convolved = hidden, seconds, bias, layout.slots, vocabulary, BRANCHES
    output, moments = kernels.convolve(*convolved, NOW)
    pooling = layout.first_row, layout.lengths, layout.slots, embedded, sums, squares
    _, means, scales = kernels.pool(*pooling, output, moments, 1e-12, NOW)
    back = (layout.slots, layout.text_of_row, gradient, embedded, hidden, output.clone())
    grad_output, pulls, totals, _ = kernels.normalise_backward(*back, means, scales, NOW)
    shared = gradient, totals, layout.text_of_row, means, scales, pulls, embedded, groups
    row = 2.0 * 768 * rows
    taps = sum(size for size, _ in BRANCHES)
    flop = 2.0 * rows * taps * 256**2

    yield Work(
        "windows' gradients by token",
        lambda cut: [
            kernels.token_sums(hidden, groups, torch.bfloat16, cut, (branch, size, left))
            for branch, (size, left) in enumerate(BRANCHES)
        ],
        SUMS,
        0,
        row + 2.0 * vocabulary * 256 * taps,
    )
    yield Work(
        "projections' gradients by token",
        lambda cut: kernels.token_sums(hidden, groups, exact, cut),
        SUMS,
        0,
        row + 4.0 * vocabulary * 768,
    )
    yield Work(
        "pool",
        lambda cut: kernels.pool(*pooling, output, moments, 1e-12, cut)[0],
        POOLS,
        0,
        row,
    )
    yield Work(
        "embeddings' gradients by token",
        lambda cut: kernels.embedding_sums(*shared, cut),
        LINES,
        0,
        4.0 * EMBEDDING * (texts + vocabulary),
    )
    yield Work(
        "normalise, backwards",
        lambda cut: kernels.normalise_backward(*back, means, scales, cut),
        LINES + GRADIENT_CUTS,
        0,
        4 * row,
        again=False,
    )
    yield Work(
        "second convolution", lambda cut: kernels.convolve(*convolved, cut), PRODUCTS, flop, 2 * row
    )
    yield Work(
        "second convolution, backwards",
        lambda cut: kernels.convolve_back(
            output, seconds, grad_output, hidden, projected, layout.slots, BRANCHES, cut
        ),
        PRODUCTS,
        flop,
        5 * row,
        again=False,
    )
    yield Work(
        "second kernels' gradients",
        lambda cut: [
            kernels.kernel_gradient(hidden, output, branch, size, left, cut)
            for branch, (size, left) in enumerate(BRANCHES)
        ],
        PRODUCTS,
        flop,
        2 * row,
    )
    yield Work(
        "first convolution",
        lambda cut: kernels.first_convolution(
            layout.slots, windows, projected, bias, BRANCHES, cut
        ),
        LINES,
        0,
        row,
    )


def described(tiles: Tiles) -> str:
    """Say where ``tiles`` differ from those of now."""
    fields = {name: getattr(tiles, name) for name in Tiles.__slots__}
    other = [f"{name} {value}" for name, value in fields.items() if value != getattr(NOW, name)]
    return ", ".join(other) or "as now"


def tensors(found: Any) -> list[torch.Tensor]:
    """Return the tensors of what a kernel returns."""
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, kernels.Moments):
        return [found.table]
    return [tensor for one in found for tensor in tensors(one)]


def distance(found: object, expected: object) -> float:
    """Return the largest relative distance of a tensor from the one expected."""
    pairs = zip(tensors(found), tensors(expected), strict=True)
    return max(
        float((one.float() - other.float()).norm() / other.float().norm()) for one, other in pairs
    )


def show(work: Work) -> None:
    print(f"{work.name}: {work.flop / 1e9:.0f} GFLOP, {work.moved / 1e6:.0f} MB", flush=True)
    for tiles in work.tiles:
        try:
            off = f"{distance(work.run(tiles), work.run(NOW)):.1e}" if work.again else "unknown"
            seconds = settled(partial(work.run, tiles))
        except Exception as error:  # Too much shared memory, most often: the next may fit.
            reason = next(iter(str(error).strip().splitlines()), "")
            print(f"  {described(tiles)}: {type(error).__name__}: {reason[:100]}", flush=True)
            continue
        print(
            f"  {described(tiles)}: {1e3 * seconds:.3f} ms, "
            f"{work.flop / seconds / 1e12:.0f} TFLOP/s, {work.moved / seconds / 1e9:.0f} GB/s, "
            f"off by {off}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=524_288)
    parser.add_argument("--vocabulary", type=int, default=24_000)
    parser.add_argument(
        "--kernels", nargs="*", default=[""], help="only those whose names hold one of these"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: the kernels need a GPU")
    with torch.autocast("cuda", torch.bfloat16):
        found = list(works(arguments))
    for work in found:
        if any(part in work.name for part in arguments.kernels):
            show(work)


if __name__ == "__main__":
    main()
