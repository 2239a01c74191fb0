"""Products of matrices on a CPU by PyTorch's two libraries: MKL, and oneDNN.

    python bench/products.py

Shapes are those of mUSE's second convolutions and of MiniLM-L12's layers with 16 pairs. Printed are
billions of operations a second, the best of several, and how far each is from double precision.
"""

from __future__ import annotations

import argparse

import torch

from clrelkt.encoders.products import linear, onednn_is_faster
from harness import timed

SHAPES = ((2112, 256, 256), (2688, 384, 384), (2688, 384, 1536), (2688, 1536, 384))
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    for rows, inner, outer in SHAPES:
        states, weight = torch.randn(rows, inner), torch.randn(outer, inner)
        exact = states.double() @ weight.double().T
        names = ["MKL", "oneDNN"] if onednn_is_faster(states, weight) else ["MKL, used here too"]
        for name, work in zip(names, (torch.nn.functional.linear, linear), strict=False):
            error = float((work(states, weight) - exact).norm() / exact.norm())
            best = min(timed(lambda: work(states, weight)) for _ in range(ROUNDS))  # noqa: B023
            rate = 2 * rows * inner * outer / best / 1e9
            print(f"{rows} x {inner} x {outer}, {name}: {rate:,.0f} GFLOP/s, off by {error:.1e}")


if __name__ == "__main__":
    main()
