"""Times of mUSE's Triton kernels, each with several ways to cut its work.

    python bench/muse_kernels.py

The batch has texts of 8 to 60 made tokens, some tokens far more frequent than others. Each kernel
is timed by itself, with the rate that its operations or its bytes, counted once, come to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from clrelkt.encoders import RaggedBatch
from clrelkt.encoders import muse_kernels as kernels
from clrelkt.encoders.muse_forward import BRANCHES
from clrelkt.encoders.muse_fused import FusedLayout
from clrelkt.encoders.muse_kernels import Tiles
from limits import settled

EMBEDDING = 512
PRODUCTS = [
    Tiles(rows=rows, depth=depth, warps=warps, stages=stages)
    for rows, depth, warps, stages in (
        (128, 64, 8, 3),
        (128, 64, 8, 4),
        (128, 64, 8, 2),
        (128, 32, 8, 4),
        (128, 128, 8, 2),
        (64, 64, 4, 3),
        (64, 64, 4, 4),
        (256, 64, 16, 3),
        (256, 32, 16, 4),
        (128, 64, 16, 3),
    )
]
LINES = [Tiles(lines=lines, span=span) for lines, span in ((8, 128), (4, 128), (16, 128), (8, 64))]
GRADIENT_CUTS = [replace(Tiles(), span=span) for span in (32, 256)]


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel with its arguments, the ways to cut it, and what it computes and moves."""

    name: str
    run: Callable[[Tiles], object]
    tiles: list[Tiles]
    flop: float
    moved: float


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
    some = Tiles()
    hidden = kernels.first_convolution(layout.slots, windows, projected, bias, BRANCHES, some)
    convolved = hidden, seconds, bias, layout.slots, vocabulary, BRANCHES
    output, moments = kernels.convolve(*convolved, some)
    pooling = layout.first_row, layout.lengths, layout.slots, embedded, sums, squares
    _, means, scales = kernels.pool(*pooling, output, moments, 1e-12, some)
    back: Any = (layout.slots, layout.text_of_row, gradient, embedded, hidden, output.clone())
    grad_output, pulls, totals, _ = kernels.normalise_backward(*back, means, scales, some)
    shared = gradient, totals, layout.text_of_row, means, scales, pulls, embedded, groups
    row = 2.0 * 768 * rows
    taps = sum(size for size, _ in BRANCHES)
    flop = 2.0 * rows * taps * 256**2

    yield Work(
        "first convolution",
        lambda cut: kernels.first_convolution(
            layout.slots, windows, projected, bias, BRANCHES, cut
        ),
        LINES,
        0,
        row,
    )
    yield Work(
        "second convolution", lambda cut: kernels.convolve(*convolved, cut), PRODUCTS, flop, 2 * row
    )
    yield Work(
        "pool",
        lambda cut: kernels.pool(*pooling, output, moments, 1e-12, cut),
        LINES,
        0,
        row,
    )
    yield Work(
        "normalise, backwards",
        lambda cut: kernels.normalise_backward(*back, means, scales, cut),
        LINES + GRADIENT_CUTS,
        0,
        4 * row,
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
        "second convolution, backwards",
        lambda cut: kernels.convolve_back(
            output, seconds, grad_output, hidden, projected, layout.slots, BRANCHES, cut
        ),
        PRODUCTS,
        flop,
        5 * row,
    )
    yield Work(
        "projections' gradients by token",
        lambda cut: kernels.token_sums(hidden, groups, exact, cut),
        LINES,
        0,
        row + 4.0 * vocabulary * 768,
    )
    yield Work(
        "windows' gradients by token",
        lambda cut: [
            kernels.token_sums(hidden, groups, torch.bfloat16, cut, (branch, size, left))
            for branch, (size, left) in enumerate(BRANCHES)
        ],
        LINES,
        0,
        row + 2.0 * vocabulary * 256 * taps,
    )
    yield Work(
        "embeddings' gradients by token",
        lambda cut: kernels.embedding_sums(*shared, cut),
        LINES,
        0,
        4.0 * EMBEDDING * (texts + vocabulary),
    )


def show(work: Work) -> None:
    print(f"{work.name}: {work.flop / 1e9:.0f} GFLOP, {work.moved / 1e6:.0f} MB", flush=True)
    for tiles in work.tiles:
        cut = (
            f"rows {tiles.rows}, depth {tiles.depth}, warps {tiles.warps}, stages {tiles.stages}"
            if work.flop
            else f"lines {tiles.lines}, span {tiles.span}"
        )
        try:
            seconds = settled(lambda cut=tiles: work.run(cut))
        except Exception as error:  # Too much shared memory, most often: the next may fit.
            print(f"  {cut}: {type(error).__name__}: {str(error)[:100]}", flush=True)
            continue
        print(
            f"  {cut}: {1e3 * seconds:.3f} ms, {work.flop / seconds / 1e12:.0f} TFLOP/s, "
            f"{work.moved / seconds / 1e9:.0f} GB/s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=524_288)
    parser.add_argument("--vocabulary", type=int, default=24_000)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: the kernels need a GPU")
    with torch.autocast("cuda", torch.bfloat16):
        found = list(works(arguments))
    for work in found:
        show(work)


if __name__ == "__main__":
    main()
