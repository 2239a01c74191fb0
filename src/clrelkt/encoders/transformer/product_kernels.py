"""Triton kernels of products whose end does the exact GELU: no sum is read back from memory for it.

Two programs share a multiprocessor: one finishes a block while the other multiplies. The way there
leaves the GELU's derivative for the way back, which has then no exponential to take.

Descriptors of matrices are made by the host and handed to a kernel by value. A graph of CUDA that
records the kernel keeps them as it keeps pointers: they are right as long as the addresses are.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

__all__ = [
    "GELU_PRODUCTS",
    "GeluProducts",
    "ProductTiles",
    "gelu_product",
    "gelu_product_backward",
]

_HOPPER = 9


@dataclass(frozen=True, slots=True)
class ProductTiles:
    """How a product is cut up.

    A program multiplies blocks of ``rows`` x ``columns`` numbers in steps of ``depth``; ``group``
    blocks of rows share their columns in the cache. ``per_processor`` persistent programs run on
    each multiprocessor, 0 starts one for each block. ``flatten`` makes one loop of those over
    blocks and steps; ``registers`` is the most that a thread may have.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    group: int = 8
    warps: int = 4
    stages: int = 3
    per_processor: int = 0
    flatten: bool = False
    registers: int | None = None


@dataclass(frozen=True, slots=True)
class GeluProducts:
    """How both ways through a product and its GELU are cut up.

    Fewer than ``least_rows`` are left to the device's library, whose products are started faster.
    """

    forward: ProductTiles
    backward: ProductTiles
    least_rows: int = 8192

    def suit(self, states: torch.Tensor, columns: int) -> bool:
        """Whether these kernels do better than the library with ``states`` (rows, depth).

        They are for Hopper's matrix units and 16 bits, and for widths that are made of whole
        blocks: what is cut off a block was multiplied for nothing.
        """
        return (
            states.dtype in {torch.float16, torch.bfloat16}
            and states.shape[0] >= self.least_rows
            and all(
                states.shape[1] % tiles.depth == 0 and columns % tiles.columns == 0
                for tiles in (self.forward, self.backward)
            )
            and (
                states.device.type != "cuda"
                or torch.cuda.get_device_capability(states.device)[0] == _HOPPER
            )
        )

    def blocks(self, rows: int) -> int:
        """Return how many blocks of rows the way back has."""
        return int(triton.cdiv(rows, self.backward.rows))


GELU_PRODUCTS = GeluProducts(
    forward=ProductTiles(group=4, warps=8, per_processor=2, flatten=True, registers=128),
    backward=ProductTiles(),
)


@triton.jit
def _halves(block):
    """Cut a block's columns in half."""
    rows: tl.constexpr = block.shape[0]
    half: tl.constexpr = block.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(block, (rows, 2, half)), (0, 2, 1)))


@triton.jit
def _place(block, high, wide: tl.constexpr, group: tl.constexpr):
    """Return which block of rows and which of columns a block is."""
    band = block // (group * wide)
    tall = tl.minimum(high - band * group, group)
    within = block % (group * wide)
    return band * group + within % tall, within // tall


@triton.jit
def _multiplied(
    left,
    right,
    top,
    across,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    step: tl.constexpr,
    turned: tl.constexpr,
):
    """Multiply rows of ``left`` by columns of ``right``, or by rows where it is ``turned``."""
    found = tl.zeros((rows, columns), dtype=tl.float32)
    for number in range(0, tl.cdiv(depth, step)):
        ours = left.load([top, number * step])
        if turned:
            theirs = right.load([across, number * step]).T
        else:
            theirs = right.load([number * step, across])
        found = tl.dot(ours, theirs, found)
    return found


@triton.jit
def _gelu_and_slope(value):
    """Return the exact GELU and its derivative.

    The normal distribution's function of -x, x >= 0, is 2 to the power of a polynomial of degree 7,
    the best one for x <= 5.2, where it is off by a factor of 3.2e-6 at most.
    """
    size = tl.abs(value)
    power = -1.82475422e-06 * size + 6.14249488e-05
    power = power * size - 9.29374383e-04
    power = power * size + 8.50418778e-03
    power = power * size - 5.39540967e-02
    power = power * size - 4.58468870e-01
    power = power * size - 1.15124980e00
    power = power * size - 9.99995359e-01
    tail = tl.exp2(power)
    found = tl.maximum(value, 0.0) - size * tail
    # The density.
    scaled = size * 0.8493218002880191
    slope = size * tl.exp2(-1.3257480647361593 - scaled * scaled) - tail
    return found, tl.where(value < 0.0, -slope, 1.0 + slope)


@triton.jit
def _finish(block, bias, inner, slopes, top, left, columns, keep: tl.constexpr):
    """Add the bias to half a block, and write down the GELU and its derivative."""
    column = left + tl.arange(0, block.shape[1])
    own = tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
    found, slope = _gelu_and_slope(block + own[None, :])
    inner.store([top, left], found.to(inner.dtype))
    if keep:
        slopes.store([top, left], slope.to(slopes.dtype))


# Batches have any number of tokens; each kind of number would be compiled anew.
@triton.jit(do_not_specialize=["rows", "programs"])
def _gelu_product_kernel(
    states,
    weight,
    bias,
    inner,
    slopes,
    rows,
    programs,
    columns: tl.constexpr,
    depth: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    group: tl.constexpr,
    flatten: tl.constexpr,
    keep: tl.constexpr,
):
    """Multiply blocks, and finish each with the GELU."""
    high = tl.cdiv(rows, block_rows)
    wide: tl.constexpr = (columns + block_columns - 1) // block_columns
    half: tl.constexpr = block_columns // 2
    for block in tl.range(tl.program_id(0), high * wide, programs, flatten=flatten):
        line, across = _place(block, high, wide, group)
        top = line * block_rows
        left = across * block_columns
        found = _multiplied(
            states, weight, top, left, block_rows, block_columns, depth, block_depth, True
        )
        first, second = _halves(found)
        _finish(first, bias, inner, slopes, top, left, columns, keep)
        _finish(second, bias, inner, slopes, top, left + half, columns, keep)


def gelu_product(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    tiles: ProductTiles,
    *,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the GELU of ``states`` times ``weight`` plus ``bias``, shape (rows, columns).

    ``states`` is (rows, depth), ``weight`` (columns, depth), of 16 bits; both lengths of a row are
    multiples of 8. With ``keep`` also the GELU's derivative there.
    """
    rows, depth = states.shape
    columns = weight.shape[0]
    inner = states.new_empty((rows, columns))
    slopes = torch.empty_like(inner) if keep else None
    half = [tiles.rows, tiles.columns // 2]
    to = TensorDescriptor.from_tensor(inner, half)
    programs = _programs(tiles, rows, columns, states.device)
    _gelu_product_kernel[(programs,)](
        TensorDescriptor.from_tensor(states, [tiles.rows, tiles.depth]),
        TensorDescriptor.from_tensor(weight, [tiles.columns, tiles.depth]),
        bias,
        to,
        to if slopes is None else TensorDescriptor.from_tensor(slopes, half),
        rows,
        programs,
        columns=columns,
        depth=depth,
        keep=keep,
        **_constants(tiles),
    )
    return inner, slopes


@triton.jit
def _finish_backward(
    block,
    slopes,
    grad_before,
    sums,
    line,
    high,
    top,
    left,
    columns,
    table_rows,
    total_columns: tl.constexpr,
):
    """Multiply half a block by the GELU's derivative, write it down and add up its columns."""
    found = block * slopes.load([top, left]).to(tl.float32)
    grad_before.store([top, left], found.to(grad_before.dtype))
    column = left + tl.arange(0, block.shape[1])
    total = tl.sum(found, 0)
    # Zeros go to the rows of the table that no block of rows has.
    for row in range(line, table_rows, high):
        at = sums + tl.cast(row, tl.int64) * total_columns + column
        tl.store(at, total, mask=column < columns)
        total = tl.zeros_like(total)


@triton.jit(do_not_specialize=["rows", "programs", "table_rows"])
def _gelu_product_backward_kernel(
    grad_output,
    weight,
    slopes,
    grad_before,
    sums,
    rows,
    programs,
    table_rows,
    total_columns: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    group: tl.constexpr,
    flatten: tl.constexpr,
):
    """Multiply blocks, and finish each with the GELU's derivative."""
    high = tl.cdiv(rows, block_rows)
    wide: tl.constexpr = (columns + block_columns - 1) // block_columns
    half: tl.constexpr = block_columns // 2
    for block in tl.range(tl.program_id(0), high * wide, programs, flatten=flatten):
        line, across = _place(block, high, wide, group)
        top = line * block_rows
        left = across * block_columns
        found = _multiplied(
            grad_output, weight, top, left, block_rows, block_columns, depth, block_depth, False
        )
        first, second = _halves(found)
        _finish_backward(
            first,
            slopes,
            grad_before,
            sums,
            line,
            high,
            top,
            left,
            columns,
            table_rows,
            total_columns,
        )
        _finish_backward(
            second,
            slopes,
            grad_before,
            sums,
            line,
            high,
            top,
            left + half,
            columns,
            table_rows,
            total_columns,
        )


def gelu_product_backward(
    grad_output: torch.Tensor,
    weight: torch.Tensor,
    slopes: torch.Tensor,
    sums: torch.Tensor,
    tiles: ProductTiles,
) -> torch.Tensor:
    """Return ``grad_output`` times ``weight`` times ``slopes``, shape (rows, columns).

    ``grad_output`` is (rows, depth), ``weight`` (depth, columns) and ``slopes`` what
    ``gelu_product`` kept. Each row of ``sums`` (at least as many as blocks of rows, columns),
    float32, gets a part of the result's sum over its rows.
    """
    rows, depth = grad_output.shape
    columns = weight.shape[1]
    grad_before = torch.empty_like(slopes)
    half = [tiles.rows, tiles.columns // 2]
    programs = _programs(tiles, rows, columns, slopes.device)
    _gelu_product_backward_kernel[(programs,)](
        TensorDescriptor.from_tensor(grad_output, [tiles.rows, tiles.depth]),
        TensorDescriptor.from_tensor(weight, [tiles.depth, tiles.columns]),
        TensorDescriptor.from_tensor(slopes, half),
        TensorDescriptor.from_tensor(grad_before, half),
        sums,
        rows,
        programs,
        sums.shape[0],
        total_columns=sums.stride(0),
        columns=columns,
        depth=depth,
        **_constants(tiles),
    )
    return grad_before


def _programs(tiles: ProductTiles, rows: int, columns: int, device: torch.device) -> int:
    blocks = int(triton.cdiv(rows, tiles.rows) * triton.cdiv(columns, tiles.columns))
    if not tiles.per_processor or device.type != "cuda":
        return blocks
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return min(blocks, tiles.per_processor * processors)


def _constants(tiles: ProductTiles) -> dict[str, Any]:
    return {
        "block_rows": tiles.rows,
        "block_columns": tiles.columns,
        "block_depth": tiles.depth,
        "group": tiles.group,
        "flatten": tiles.flatten,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
        "maxnreg": tiles.registers,
    }
