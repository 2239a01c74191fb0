"""Triton kernels of mUSE's pass over all rows of a batch (``fused`` calls them).

A row is one place of the gapped layout and has 768 numbers, the three branches side by side. Each
kernel reads and writes a row as few times as can be. Sums are float32 and always taken in the same
order: nothing is added atomically.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch.nn import functional

__all__ = [
    "Groups",
    "Moments",
    "Tiles",
    "convolve",
    "convolve_back",
    "embedding_sums",
    "first_convolution",
    "kernel_gradient",
    "normalise_backward",
    "pool",
    "project",
    "project_backward",
    "token_sums",
]

_WIDTH = 768
_BRANCH = 256
# Programs of a kernel gradient: twice the multiprocessors of an H100 or H200.
_PROGRAMS = 264


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the kernels cut their work.

    A convolution's program multiplies ``rows`` x 256 numbers in steps of ``depth``, a kernel
    gradient's 128 x 256 in steps of ``depth`` rows; both have ``warps`` and ``stages``. The others
    work on ``lines`` rows at a time; backwards on ``span`` rows a program, whose bias gradients
    they add up. A program of the sums by token adds up ``sum_lines`` rows at a time, at
    ``sum_places`` places at most, with ``sum_warps``; one of the pooling takes ``pool_lines`` rows
    of a text at a time, with ``pool_warps``.
    """

    rows: int = 128
    depth: int = 64
    warps: int = 8
    stages: int = 4
    lines: int = 4
    span: int = 128
    sum_lines: int = 4
    sum_places: int = 1
    sum_warps: int = 1
    pool_lines: int = 1
    pool_warps: int = 1

    @classmethod
    def of(cls, dtype: torch.dtype) -> "Tiles":
        """Return what suits rows of ``dtype``."""
        return cls(depth=32) if dtype == torch.float32 else cls()


@dataclass(frozen=True, slots=True)
class Groups:
    """The rows of each token: ``members`` (tokens,) int32, one token's behind the other's.

    The members of slot s begin at ``begins[s]`` and end at ``begins[s + 1]``; ``begins`` has shape
    (slots + 2,), and the gap's slot has none. A token of more than ``part`` rows is cut into parts:
    ``part_slot`` (parts,) says whose each is, the number of slots where it is nobody's, and
    ``first_part`` (slots + 1,) where a slot's parts begin.
    """

    members: torch.Tensor
    begins: torch.Tensor
    part_slot: torch.Tensor
    first_part: torch.Tensor
    part: int

    @classmethod
    def of(cls, members: torch.Tensor, begins: torch.Tensor, part: int = 128) -> "Groups":
        """Group ``members`` (tokens,); ``begins`` (slots + 1,) says where, and ends with tokens."""
        counts = begins.diff()
        parts = torch.where(counts > part, (counts + part - 1) // part, 0).cumsum(0)
        # A token that is cut has more than half a part in each of its parts on average.
        numbers = torch.arange(2 * members.shape[0] // part, device=members.device)
        return cls(
            members=members.int(),
            begins=torch.cat([begins, begins[-1:]]).int(),
            part_slot=torch.searchsorted(parts, numbers, right=True).int(),
            first_part=functional.pad(parts, (1, 0)).int(),
            part=part,
        )

    @property
    def slots(self) -> int:
        """Number of tokens, the gap not among them."""
        return self.begins.shape[0] - 2


@dataclass(frozen=True, slots=True)
class Moments:
    """Each row's sums and sums of squares, branch by branch, shape (3, 2, rows), float32."""

    table: torch.Tensor

    @classmethod
    def empty(cls, like: torch.Tensor) -> "Moments":
        """Make room for those of rows ``like``, shape (rows, 768)."""
        return cls(like.new_empty((_WIDTH // _BRANCH, 2, like.shape[0]), dtype=torch.float32))


@triton.jit(do_not_specialize=["rows"])
def _project_kernel(branches, gain, bias, projected, rows, epsilon, lines: tl.constexpr):
    """Normalise one branch of some tokens; the row behind the last is the gap's."""
    row = tl.program_id(0) * lines + tl.arange(0, lines)
    column = tl.program_id(1) * 256 + tl.arange(0, 256)
    inside = (row < rows)[:, None]
    at = row.to(tl.int64)[:, None] * 768 + column[None, :]
    found = tl.load(branches + at, mask=inside, other=0.0).to(tl.float32)
    found = found - (tl.sum(found, 1) / 256)[:, None]
    found = found * (1.0 / tl.sqrt(tl.sum(found * found, 1) / 256 + epsilon))[:, None]
    found = found * tl.load(gain + column)[None, :] + tl.load(bias + column)[None, :]
    tl.store(
        projected + at,
        tl.where(inside, found, 0.0).to(projected.dtype.element_ty),
        mask=(row <= rows)[:, None],
    )


def project(
    branches: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, epsilon: float, tiles: Tiles
) -> torch.Tensor:
    """Return tokens' projections, each branch normalised, and zeros for the gap.

    From ``branches`` (slots, 768) and ``gain`` and ``bias`` (768,) float32, shape
    (slots + 1, 768).
    """
    slots = branches.shape[0]
    projected = branches.new_empty(slots + 1, _WIDTH)
    _project_kernel[(triton.cdiv(slots + 1, tiles.lines), _WIDTH // _BRANCH)](
        branches, gain, bias, projected, slots, epsilon, lines=tiles.lines, num_warps=4
    )
    return projected


@triton.jit(do_not_specialize=["rows"])
def _project_backward_kernel(
    branches,
    gain,
    by_token,
    by_window,
    grad_branches,
    parts,
    rows,
    epsilon,
    lines: tl.constexpr,
    span: tl.constexpr,
):
    """Go back through the normalisation of one branch of some tokens."""
    column = tl.program_id(1) * 256 + tl.arange(0, 256)
    factor = tl.load(gain + column)[None, :]
    grad_gain = tl.zeros((lines, 256), dtype=tl.float32)
    grad_bias = tl.zeros((lines, 256), dtype=tl.float32)
    grad_before = tl.zeros((lines, 256), dtype=tl.float32)
    for start in range(0, span, lines):
        row = tl.program_id(0) * span + start + tl.arange(0, lines)
        inside = (row < rows)[:, None]
        at = row.to(tl.int64)[:, None] * 768 + column[None, :]
        normal = tl.load(branches + at, mask=inside, other=0.0).to(tl.float32)
        own = tl.load(by_token + at, mask=inside, other=0.0).to(tl.float32)
        own += tl.load(by_window + at, mask=inside, other=0.0).to(tl.float32)
        normal = normal - (tl.sum(normal, 1) / 256)[:, None]
        scale = 1.0 / tl.sqrt(tl.sum(normal * normal, 1) / 256 + epsilon)
        normal = normal * scale[:, None]
        grad_gain += own * normal
        grad_bias += own
        own = own * factor
        along = tl.sum(own * normal, 1) / 256
        own = own - (tl.sum(own, 1) / 256)[:, None] - normal * along[:, None]
        own = own * tl.where(row < rows, scale, 0.0)[:, None]
        grad_before += own
        tl.store(grad_branches + at, own.to(grad_branches.dtype.element_ty), mask=inside)
    to = parts + tl.program_id(0) * 2304 + column
    tl.store(to, tl.sum(grad_before, 0))
    tl.store(to + 768, tl.sum(grad_gain, 0))
    tl.store(to + 1536, tl.sum(grad_bias, 0))


def project_backward(
    branches: torch.Tensor,
    gain: torch.Tensor,
    by_token: torch.Tensor,
    by_window: torch.Tensor,
    epsilon: float,
    tiles: Tiles,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient of ``branches``, and the sum of it, of the gain and of the bias.

    The gradient of the projections (slots + 1, 768) is ``by_token`` + ``by_window``. Sums have
    shape (3, 768), float32.
    """
    slots = branches.shape[0]
    grad_branches = torch.empty_like(branches)
    programs = triton.cdiv(slots, tiles.span)
    parts = branches.new_empty((programs, 3, _WIDTH), dtype=torch.float32)
    _project_backward_kernel[(programs, _WIDTH // _BRANCH)](
        branches,
        gain,
        by_token,
        by_window,
        grad_branches,
        parts,
        slots,
        epsilon,
        lines=tiles.lines,
        span=tiles.span,
        num_warps=4,
    )
    return grad_branches, parts.sum(0)


@triton.jit
def _looked_up(
    slots,
    windows,
    bias,
    row,
    rows,
    gap,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    lines: tl.constexpr,
):
    """Return the first convolution of one branch before its relu, shape (lines, 256)."""
    column = tl.arange(0, 256)
    total = tl.zeros((lines, 256), dtype=tl.float32)
    total += tl.load(bias + branch * 256 + column).to(tl.float32)[None, :]
    for place in tl.static_range(size):
        at = row + (place - left)
        slot = tl.load(slots + at, mask=(at >= 0) & (at < rows), other=gap)
        entry = (slot.to(tl.int64) * size + place) * 256
        found = tl.load(
            windows + entry[:, None] + column[None, :], mask=(slot < gap)[:, None], other=0.0
        )
        total += found.to(tl.float32)
    return total


@triton.jit(do_not_specialize=["rows", "gap"])
def _first_kernel(
    slots,
    windows,
    projected,
    bias,
    hidden,
    rows,
    gap,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    lines: tl.constexpr,
):
    """Look up and add what a row's window stands for, relu, and add the row's own projection."""
    row = tl.program_id(0) * lines + tl.arange(0, lines)
    column = branch * 256 + tl.arange(0, 256)
    inside = row < rows
    slot = tl.load(slots + row, mask=inside, other=gap)
    total = _looked_up(slots, windows, bias, row, rows, gap, size, left, branch, lines)
    own = tl.load(
        projected + slot.to(tl.int64)[:, None] * 768 + column[None, :],
        mask=(slot < gap)[:, None],
        other=0.0,
    )
    found = tl.where((slot < gap)[:, None], tl.maximum(total, 0.0) + own.to(tl.float32), 0.0)
    tl.store(
        hidden + row.to(tl.int64)[:, None] * 768 + column[None, :],
        found.to(hidden.dtype.element_ty),
        mask=inside[:, None],
    )


def first_convolution(
    slots: torch.Tensor,
    windows: Sequence[torch.Tensor],
    projected: torch.Tensor,
    bias: torch.Tensor,
    branches: Sequence[tuple[int, int]],
    tiles: Tiles,
) -> torch.Tensor:
    """Return the rows behind the first convolution, shape (rows, 768).

    ``slots`` (rows,) int32 are indices into ``projected`` (slots + 1, 768), the last one the gap's;
    ``windows`` are shaped ((slots + 1) * size, 256), ``bias`` (768,).
    """
    rows, gap = slots.shape[0], projected.shape[0] - 1
    hidden = projected.new_empty(rows, _WIDTH)
    for branch, (size, left) in enumerate(branches):
        _first_kernel[(triton.cdiv(rows, tiles.lines),)](
            slots,
            windows[branch],
            projected,
            bias,
            hidden,
            rows,
            gap,
            size=size,
            left=left,
            branch=branch,
            lines=tiles.lines,
            num_warps=4,
        )
    return hidden


@triton.jit
def _product(
    source,
    kernel,
    first,
    rows,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    block_rows: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
):
    """Return a convolution of block_rows rows from ``first`` on, shape (block_rows, 256)."""
    row = tl.arange(0, block_rows)
    depth = tl.arange(0, block_depth)
    column = tl.arange(0, 256)
    steps: tl.constexpr = 256 // block_depth
    base = source + first.to(tl.int64) * 768 + branch * 256
    ours_at = row[:, None] * 768 + depth[None, :]
    theirs_at = depth[:, None] * 256 + column[None, :]
    total = tl.zeros((block_rows, 256), dtype=tl.float32)
    for step in range(0, size * steps):
        shift = step // steps - left
        at = first + row + shift
        ours = tl.load(
            base + shift * 768 + (step % steps) * block_depth + ours_at,
            mask=((at >= 0) & (at < rows))[:, None],
            other=0.0,
        )
        theirs = tl.load(kernel + step * block_depth * 256 + theirs_at)
        total = tl.dot(ours, theirs, total, input_precision=precision)
    return total


@triton.jit
def _halves(total, block_rows: tl.constexpr):
    """Return the left and the right 128 columns: there are registers for the ends of one only."""
    return tl.split(tl.permute(tl.reshape(total, (block_rows, 2, 128)), (0, 2, 1)))


@triton.jit
def _end_forward(total, hidden, bias, output, row, first_column, within, inside):
    """Write 128 columns of what a convolution gives; return their sums and sums of squares."""
    column = first_column + tl.arange(0, 128)
    at = row.to(tl.int64)[:, None] * 768 + column[None, :]
    own = tl.load(hidden + at, mask=within[:, None], other=0.0).to(tl.float32)
    total += tl.load(bias + column).to(tl.float32)[None, :]
    found = tl.where(inside[:, None], tl.maximum(total, 0.0) + own, 0.0)
    tl.store(output + at, found.to(output.dtype.element_ty), mask=within[:, None])
    return tl.sum(found, 1), tl.sum(found * found, 1)


@triton.jit(do_not_specialize=["rows", "gap"])
def _convolve_kernel(
    hidden,
    kernel,
    bias,
    slots,
    output,
    moments,
    rows,
    gap,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    block_rows: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
):
    """Convolve, relu, add what went in; and each row's sum and sum of squares."""
    first = tl.program_id(0) * block_rows
    total = _product(
        hidden, kernel, first, rows, size, left, branch, block_rows, block_depth, precision
    )
    row = first + tl.arange(0, block_rows)
    within = row < rows
    inside = tl.load(slots + row, mask=within, other=gap) < gap
    left_half, right_half = _halves(total, block_rows)
    sums, squares = _end_forward(left_half, hidden, bias, output, row, branch * 256, within, inside)
    more, more_squares = _end_forward(
        right_half, hidden, bias, output, row, branch * 256 + 128, within, inside
    )
    place = moments + branch * 2 * rows.to(tl.int64) + row
    tl.store(place, sums + more, mask=within)
    tl.store(place + rows, squares + more_squares, mask=within)


def convolve(
    hidden: torch.Tensor,
    kernels: Sequence[torch.Tensor],
    bias: torch.Tensor,
    slots: torch.Tensor,
    gap: int,
    branches: Sequence[tuple[int, int]],
    tiles: Tiles,
) -> tuple[torch.Tensor, Moments]:
    """Return the rows behind the second convolution, shape (rows, 768), and their moments.

    ``kernels`` are shaped (size, 256, 256), in the type of ``hidden``.
    """
    rows = hidden.shape[0]
    output = torch.empty_like(hidden)
    moments = Moments.empty(hidden)
    for branch, (size, left) in enumerate(branches):
        _convolve_kernel[(triton.cdiv(rows, tiles.rows),)](
            hidden,
            kernels[branch].contiguous(),
            bias,
            slots,
            output,
            moments.table,
            rows,
            gap,
            size=size,
            left=left,
            branch=branch,
            block_rows=tiles.rows,
            block_depth=tiles.depth,
            precision="tf32",
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return output, moments


@triton.jit
def _end_back(
    total,
    grad_output,
    hidden,
    projected,
    grad_summed,
    bias_parts,
    row,
    slot,
    first_column,
    within,
    inside,
):
    """Write 128 columns of gradients, and their sum over the rows."""
    column = first_column + tl.arange(0, 128)
    at = row.to(tl.int64)[:, None] * 768 + column[None, :]
    total += tl.load(grad_output + at, mask=within[:, None], other=0.0).to(tl.float32)
    total = tl.where(inside[:, None], total, 0.0)
    tl.store(grad_output + at, total.to(grad_output.dtype.element_ty), mask=within[:, None])
    # Rows behind the first convolution are relu(sum) + own: above their own where it passed.
    after = tl.load(hidden + at, mask=within[:, None], other=0.0)
    own = tl.load(
        projected + slot.to(tl.int64)[:, None] * 768 + column[None, :],
        mask=inside[:, None],
        other=0.0,
    )
    total = tl.where(after.to(tl.float32) > own.to(tl.float32), total, 0.0)
    tl.store(grad_summed + at, total.to(grad_summed.dtype.element_ty), mask=within[:, None])
    tl.store(bias_parts + column, tl.sum(total, 0))


@triton.jit(do_not_specialize=["rows", "gap"])
def _convolve_back_kernel(
    grad_convolved,
    kernel,
    grad_output,
    hidden,
    projected,
    slots,
    grad_summed,
    bias_parts,
    rows,
    gap,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    block_rows: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
):
    """Convolve gradients the other way round, add what passes by, and go back through the relu."""
    first = tl.program_id(0) * block_rows
    total = _product(
        grad_convolved, kernel, first, rows, size, left, branch, block_rows, block_depth, precision
    )
    row = first + tl.arange(0, block_rows)
    within = row < rows
    slot = tl.load(slots + row, mask=within, other=gap)
    to = bias_parts + tl.program_id(0) * 768
    halves = _halves(total, block_rows)
    for half in tl.static_range(2):
        _end_back(
            halves[half],
            grad_output,
            hidden,
            projected,
            grad_summed,
            to,
            row,
            slot,
            branch * 256 + half * 128,
            within,
            slot < gap,
        )


def convolve_back(
    grad_convolved: torch.Tensor,
    kernels: Sequence[torch.Tensor],
    grad_output: torch.Tensor,
    hidden: torch.Tensor,
    projected: torch.Tensor,
    slots: torch.Tensor,
    branches: Sequence[tuple[int, int]],
    tiles: Tiles,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient of the first convolution's sums, and that of its bias, (768,) float32.

    ``grad_output`` (rows, 768), the gradient of the rows behind the second convolution, becomes
    the gradient of those behind the first.
    """
    rows = hidden.shape[0]
    grad_summed = torch.empty_like(hidden)
    programs = triton.cdiv(rows, tiles.rows)
    bias_parts = hidden.new_empty((programs, _WIDTH), dtype=torch.float32)
    for branch, (size, left) in enumerate(branches):
        _convolve_back_kernel[(programs,)](
            grad_convolved,
            kernels[branch].flip(0).transpose(1, 2).contiguous(),
            grad_output,
            hidden,
            projected,
            slots,
            grad_summed,
            bias_parts,
            rows,
            projected.shape[0] - 1,
            size=size,
            left=size - 1 - left,
            branch=branch,
            block_rows=tiles.rows,
            block_depth=tiles.depth,
            precision="tf32",
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return grad_summed, bias_parts.sum(0)


@triton.jit(do_not_specialize=["rows", "chunk"])
def _kernel_gradient_kernel(
    hidden,
    grad_convolved,
    parts,
    rows,
    chunk,
    size: tl.constexpr,
    left: tl.constexpr,
    branch: tl.constexpr,
    block_depth: tl.constexpr,
    precision: tl.constexpr,
):
    """Multiply half of the rows' columns at one place of the window with a chunk's gradients."""
    place = tl.program_id(0) % size
    half = tl.program_id(0) // size * 128
    line = tl.arange(0, block_depth)
    first_column = tl.arange(0, 128)
    column = tl.arange(0, 256)
    begin = tl.program_id(1) * chunk
    end = tl.minimum(begin + chunk, rows)
    total = tl.zeros((128, 256), dtype=tl.float32)
    for start in range(begin, end, block_depth):
        row = start + line
        at = row + place - left
        ours = tl.load(
            hidden + at.to(tl.int64)[:, None] * 768 + (branch * 256 + half + first_column)[None, :],
            mask=((row < end) & (at >= 0) & (at < rows))[:, None],
            other=0.0,
        )
        theirs = tl.load(
            grad_convolved + row.to(tl.int64)[:, None] * 768 + (branch * 256 + column)[None, :],
            mask=(row < end)[:, None],
            other=0.0,
        )
        total = tl.dot(tl.trans(ours), theirs, total, input_precision=precision)
    table = parts + (tl.program_id(1) * size + place).to(tl.int64) * 65536
    tl.store(table + (half + first_column)[:, None] * 256 + column[None, :], total)


def kernel_gradient(
    hidden: torch.Tensor,
    grad_convolved: torch.Tensor,
    branch: int,
    size: int,
    left: int,
    tiles: Tiles,
) -> torch.Tensor:
    """Return the gradient of one branch's second kernel, shape (size, 256, 256), float32."""
    rows = hidden.shape[0]
    chunks = min(_PROGRAMS // (2 * size), triton.cdiv(rows, 8 * tiles.depth))
    chunk = triton.cdiv(triton.cdiv(rows, chunks), tiles.depth) * tiles.depth
    chunks = triton.cdiv(rows, chunk)
    parts = hidden.new_empty((chunks, size, _BRANCH, _BRANCH), dtype=torch.float32)
    _kernel_gradient_kernel[(2 * size, chunks)](
        hidden,
        grad_convolved,
        parts,
        rows,
        chunk,
        size=size,
        left=left,
        branch=branch,
        block_depth=tiles.depth,
        precision="tf32",
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return parts.sum(0)


@triton.jit(do_not_specialize=["rows"])
def _pool_kernel(
    first_row,
    lengths,
    slots,
    embedded,
    sums,
    squares,
    output,
    moments,
    means,
    scales,
    pooled,
    rows,
    epsilon,
    embedding: tl.constexpr,
    block_embedding: tl.constexpr,
    lines: tl.constexpr,
):
    """Normalise and add up the rows of one text."""
    text = tl.program_id(0)
    begin = tl.load(first_row + text).to(tl.int64)
    count = tl.load(lengths + text)
    width: tl.constexpr = embedding + 768
    line = tl.arange(0, lines)
    column = tl.arange(0, 256)
    known_column = tl.arange(0, block_embedding)
    high = rows.to(tl.int64)
    known_total = tl.zeros((lines, block_embedding), dtype=tl.float32)
    total_0 = tl.zeros((lines, 256), dtype=tl.float32)
    total_1 = tl.zeros((lines, 256), dtype=tl.float32)
    total_2 = tl.zeros((lines, 256), dtype=tl.float32)
    shift = tl.zeros((lines,), dtype=tl.float32)
    for start in range(0, count, lines):
        row = begin + start + line
        inside = start + line < count
        slot = tl.load(slots + row, mask=inside, other=0).to(tl.int64)
        mean = tl.load(sums + slot, mask=inside, other=0.0)
        power = tl.load(squares + slot, mask=inside, other=0.0)
        for branch in tl.static_range(3):
            mean += tl.load(moments + branch * 2 * high + row, mask=inside, other=0.0)
            power += tl.load(moments + (branch * 2 + 1) * high + row, mask=inside, other=0.0)
        mean = mean / width
        variance = tl.maximum(power / width - mean * mean, 0.0)
        scale = tl.where(inside, 1.0 / tl.sqrt(variance + epsilon), 0.0)
        tl.store(means + row, mean, mask=inside)
        tl.store(scales + row, scale, mask=inside)
        shift += scale * mean
        known = tl.load(
            embedded + slot[:, None] * embedding + known_column[None, :],
            mask=inside[:, None] & (known_column < embedding)[None, :],
            other=0.0,
        )
        known_total += known.to(tl.float32) * scale[:, None]
        at = output + row[:, None] * 768 + column[None, :]
        total_0 += tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32) * scale[:, None]
        total_1 += (
            tl.load(at + 256, mask=inside[:, None], other=0.0).to(tl.float32) * scale[:, None]
        )
        total_2 += (
            tl.load(at + 512, mask=inside[:, None], other=0.0).to(tl.float32) * scale[:, None]
        )
    away = tl.sum(shift, 0)
    to = pooled + text.to(tl.int64) * width
    tl.store(to + known_column, tl.sum(known_total, 0) - away, mask=known_column < embedding)
    tl.store(to + embedding + column, tl.sum(total_0, 0) - away)
    tl.store(to + embedding + 256 + column, tl.sum(total_1, 0) - away)
    tl.store(to + embedding + 512 + column, tl.sum(total_2, 0) - away)


def pool(
    first_row: torch.Tensor,
    lengths: torch.Tensor,
    slots: torch.Tensor,
    embedded: torch.Tensor,
    sums: torch.Tensor,
    squares: torch.Tensor,
    output: torch.Tensor,
    moments: Moments,
    epsilon: float,
    tiles: Tiles,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the texts' sums, shape (texts, embedding + 768), and rows' means and scales, float32.

    ``embedded`` (slots, embedding) are the tokens' embeddings; ``sums`` and ``squares`` (slots,)
    those of each one's numbers. Means and scales (rows,) say nothing of gaps.
    """
    rows, texts, embedding = output.shape[0], lengths.shape[0], embedded.shape[1]
    means, scales = output.new_empty((2, rows), dtype=torch.float32)
    pooled = output.new_empty((texts, embedding + _WIDTH), dtype=torch.float32)
    if texts:
        _pool_kernel[(texts,)](
            first_row,
            lengths,
            slots,
            embedded,
            sums,
            squares,
            output,
            moments.table,
            means,
            scales,
            pooled,
            rows,
            epsilon,
            embedding=embedding,
            block_embedding=triton.next_power_of_2(embedding),
            lines=tiles.pool_lines,
            num_warps=tiles.pool_warps,
        )
    return pooled, means, scales


@triton.jit
def _branch_backward(
    own, output, hidden, grad_output, at, inside, within, scale, shift, pull, total
):
    """Write one branch's gradients of rows ``at``; return ``total`` and the relu's added."""
    after = tl.load(output + at, mask=inside[:, None], other=0.0).to(tl.float32)
    before = tl.load(hidden + at, mask=inside[:, None], other=0.0).to(tl.float32)
    found = own * scale[:, None] - shift[:, None] - after * pull[:, None]
    tl.store(grad_output + at, found.to(grad_output.dtype.element_ty), mask=within[:, None])
    # The rows are relu(convolution) + hidden: above hidden where the relu passed.
    passed = tl.where(after > before, found, 0.0)
    tl.store(output + at, passed.to(output.dtype.element_ty), mask=within[:, None])
    return total + passed


@triton.jit(do_not_specialize=["rows", "gap"])
def _normalise_backward_kernel(
    slots,
    text_of_row,
    gradient,
    totals,
    embedded,
    hidden,
    output,
    means,
    scales,
    grad_output,
    pulls,
    bias_parts,
    rows,
    gap,
    embedding: tl.constexpr,
    block_embedding: tl.constexpr,
    lines: tl.constexpr,
    span: tl.constexpr,
):
    """Go back from the texts' sums to the rows behind the second convolution and its relu."""
    width: tl.constexpr = embedding + 768
    line = tl.arange(0, lines)
    column = tl.arange(0, 256)
    known_column = tl.arange(0, block_embedding)
    bias_0 = tl.zeros((lines, 256), dtype=tl.float32)
    bias_1 = tl.zeros((lines, 256), dtype=tl.float32)
    bias_2 = tl.zeros((lines, 256), dtype=tl.float32)
    for start in range(0, span, lines):
        row = tl.program_id(0) * span + start + line
        within = row < rows
        slot = tl.load(slots + row, mask=within, other=gap)
        inside = slot < gap
        text = tl.load(text_of_row + row, mask=inside, other=0).to(tl.int64)
        mean = tl.load(means + row, mask=inside, other=0.0)
        scale = tl.load(scales + row, mask=inside, other=0.0)
        total = tl.load(totals + text, mask=inside, other=0.0)
        both = inside[:, None] & (known_column < embedding)[None, :]
        from_text = gradient + text[:, None] * width
        own = tl.load(from_text + known_column[None, :], mask=both, other=0.0)
        known = tl.load(
            embedded + slot.to(tl.int64)[:, None] * embedding + known_column[None, :],
            mask=both,
            other=0.0,
        )
        along = tl.sum(own * known.to(tl.float32), 1)
        branches = from_text + embedding + column[None, :]
        own_0 = tl.load(branches, mask=inside[:, None], other=0.0)
        own_1 = tl.load(branches + 256, mask=inside[:, None], other=0.0)
        own_2 = tl.load(branches + 512, mask=inside[:, None], other=0.0)
        at = row.to(tl.int64)[:, None] * 768 + column[None, :]
        after = tl.load(output + at, mask=inside[:, None], other=0.0)
        along += tl.sum(own_0 * after.to(tl.float32), 1)
        after = tl.load(output + at + 256, mask=inside[:, None], other=0.0)
        along += tl.sum(own_1 * after.to(tl.float32), 1)
        after = tl.load(output + at + 512, mask=inside[:, None], other=0.0)
        along += tl.sum(own_2 * after.to(tl.float32), 1)
        pull = scale * scale * (scale * (along - mean * total) / width)
        shift = scale * (total / width) - pull * mean
        tl.store(pulls + row, pull, mask=within)
        bias_0 = _branch_backward(
            own_0, output, hidden, grad_output, at, inside, within, scale, shift, pull, bias_0
        )
        bias_1 = _branch_backward(
            own_1, output, hidden, grad_output, at + 256, inside, within, scale, shift, pull, bias_1
        )
        bias_2 = _branch_backward(
            own_2, output, hidden, grad_output, at + 512, inside, within, scale, shift, pull, bias_2
        )
    to = bias_parts + tl.program_id(0) * 768 + column
    tl.store(to, tl.sum(bias_0, 0))
    tl.store(to + 256, tl.sum(bias_1, 0))
    tl.store(to + 512, tl.sum(bias_2, 0))


def normalise_backward(
    slots: torch.Tensor,
    text_of_row: torch.Tensor,
    gradient: torch.Tensor,
    embedded: torch.Tensor,
    hidden: torch.Tensor,
    output: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    tiles: Tiles,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradient of ``output``, rows' pulls, texts' totals, and the bias's gradient.

    ``output`` (rows, 768) becomes the gradient of the second convolution before its relu.
    ``gradient`` (texts, embedding + 768) is float32, as are pulls (rows,), totals (texts,), each
    text's sum of its gradient, and the gradient of the second bias (768,).
    """
    rows, embedding = output.shape[0], embedded.shape[1]
    grad_output = torch.empty_like(output)
    totals = gradient.sum(1)
    pulls = means.new_empty(rows)
    programs = triton.cdiv(rows, tiles.span)
    bias_parts = means.new_empty(programs, _WIDTH)
    _normalise_backward_kernel[(programs,)](
        slots,
        text_of_row,
        gradient,
        totals,
        embedded,
        hidden,
        output,
        means,
        scales,
        grad_output,
        pulls,
        bias_parts,
        rows,
        embedded.shape[0],
        embedding=embedding,
        block_embedding=triton.next_power_of_2(embedding),
        lines=tiles.lines,
        span=tiles.span,
        # A warp a row: no number is read by two, so none is read after it was written over.
        num_warps=tiles.lines,
    )
    return grad_output, pulls, totals, bias_parts.sum(0)


@triton.jit
def _members_sum(
    source,
    members,
    begin,
    end,
    place,
    places: tl.constexpr,
    shift_of_place: tl.constexpr,
    first_shift: tl.constexpr,
    column_of_place: tl.constexpr,
    first_column: tl.constexpr,
    lines: tl.constexpr,
    block_places: tl.constexpr,
):
    """Return, place by place, the sum of 256 columns of rows before the members'.

    Shape (block_places, 256). A row before its members' is as far as the place says.
    """
    line = tl.arange(0, lines)
    shift = place * shift_of_place + first_shift
    offset = place * column_of_place + first_column - shift * 768
    at = source + offset[:, None] + tl.arange(0, 256)[None, :]
    wanted = (place < places)[None, :, None]
    total = tl.zeros((lines, block_places, 256), dtype=tl.float32)
    row = tl.load(members + begin + line, mask=begin + line < end, other=0)
    for start in range(begin, end, lines):
        # The next rows' numbers come while these rows do.
        number = start + lines + line
        following = tl.load(members + number, mask=number < end, other=0)
        inside = (start + line < end)[:, None, None] & wanted
        found = tl.load(
            at[None, :, :] + row.to(tl.int64)[:, None, None] * 768, mask=inside, other=0.0
        )
        total += found.to(tl.float32)
        row = following
    return tl.sum(total, 0)


@triton.jit
def _parts_sum(
    partial,
    first,
    count,
    width: tl.constexpr,
    column,
    block_width: tl.constexpr,
    lines: tl.constexpr,
):
    """Return the sum of some columns of a slot's parts, shape (block_width,)."""
    line = tl.arange(0, lines)
    total = tl.zeros((lines, block_width), dtype=tl.float32)
    for start in range(0, count, lines):
        number = (first + start + line).to(tl.int64)
        total += tl.load(
            partial + number[:, None] * width + column[None, :],
            mask=(start + line < count)[:, None] & (column < width)[None, :],
            other=0.0,
        )
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["slots"])
def _token_parts_kernel(
    source,
    members,
    begins,
    part_slot,
    first_part,
    partial,
    slots,
    part: tl.constexpr,
    places: tl.constexpr,
    shift_of_place: tl.constexpr,
    first_shift: tl.constexpr,
    column_of_place: tl.constexpr,
    first_column: tl.constexpr,
    lines: tl.constexpr,
    block_places: tl.constexpr,
):
    """Add up the rows of one part of a frequent token, at some places."""
    number = tl.program_id(0)
    place = tl.program_id(1) * block_places + tl.arange(0, block_places)
    slot = tl.load(part_slot + number)
    if slot < slots:
        begin = tl.load(begins + slot) + (number - tl.load(first_part + slot)) * part
        end = tl.minimum(begin + part, tl.load(begins + slot + 1))
        total = _members_sum(
            source,
            members,
            begin,
            end,
            place,
            places,
            shift_of_place,
            first_shift,
            column_of_place,
            first_column,
            lines,
            block_places,
        )
        at = (number.to(tl.int64) * places + place) * 256
        tl.store(
            partial + at[:, None] + tl.arange(0, 256)[None, :],
            total,
            mask=(place < places)[:, None],
        )


@triton.jit
def _token_slots_kernel(
    source,
    members,
    begins,
    first_part,
    partial,
    found,
    part: tl.constexpr,
    places: tl.constexpr,
    shift_of_place: tl.constexpr,
    first_shift: tl.constexpr,
    column_of_place: tl.constexpr,
    first_column: tl.constexpr,
    lines: tl.constexpr,
    block_places: tl.constexpr,
):
    """Add up the rows of a token, or its parts, at some places."""
    slot = tl.program_id(0)
    begin = tl.load(begins + slot)
    end = tl.load(begins + slot + 1)
    to = found + slot.to(tl.int64) * places * 256
    if end - begin <= part:
        place = tl.program_id(1) * block_places + tl.arange(0, block_places)
        total = _members_sum(
            source,
            members,
            begin,
            end,
            place,
            places,
            shift_of_place,
            first_shift,
            column_of_place,
            first_column,
            lines,
            block_places,
        )
        tl.store(
            to + place[:, None] * 256 + tl.arange(0, 256)[None, :],
            total.to(found.dtype.element_ty),
            mask=(place < places)[:, None],
        )
    else:
        width: tl.constexpr = places * 256
        block_width: tl.constexpr = block_places * 256
        column = tl.program_id(1) * block_width + tl.arange(0, block_width)
        first = tl.load(first_part + slot)
        count = (end - begin + part - 1) // part
        # Triton knows a name by one shape.
        whole = _parts_sum(partial, first, count, width, column, block_width, lines)
        tl.store(to + column, whole.to(found.dtype.element_ty), mask=column < width)


def token_sums(
    rows: torch.Tensor,
    groups: Groups,
    dtype: torch.dtype,
    tiles: Tiles,
    window: tuple[int, int, int] | None = None,
) -> torch.Tensor:
    """Return sums over each token's rows, and zeros for the gap, in ``dtype``.

    Of ``rows`` (rows, 768) whole, shape (slots + 1, 768); with ``window``, a branch's number, size
    and left context, of that branch's columns in the rows whose window holds the token at each of
    its places, shape ((slots + 1) * size, 256).
    """
    if window is None:
        places, layout = _WIDTH // _BRANCH, (0, 0, _BRANCH, 0)
    else:
        branch, places, left = window
        layout = (1, -left, 0, branch * _BRANCH)
    together = min(tiles.sum_places, triton.next_power_of_2(places))
    programs = triton.cdiv(places, together)
    partial = rows.new_empty((groups.part_slot.shape[0], places, _BRANCH), dtype=torch.float32)
    found = rows.new_empty(((groups.slots + 1) * places, _BRANCH), dtype=dtype)
    named = dict(
        zip(
            ("shift_of_place", "first_shift", "column_of_place", "first_column"),
            layout,
            strict=True,
        ),
        part=groups.part,
        places=places,
        lines=tiles.sum_lines,
        block_places=together,
        num_warps=tiles.sum_warps,
    )
    if groups.part_slot.shape[0]:
        _token_parts_kernel[(groups.part_slot.shape[0], programs)](
            rows,
            groups.members,
            groups.begins,
            groups.part_slot,
            groups.first_part,
            partial,
            groups.slots,
            **named,
        )
    _token_slots_kernel[(groups.slots + 1, programs)](
        rows, groups.members, groups.begins, groups.first_part, partial, found, **named
    )
    return found.view(-1, _WIDTH) if window is None else found


@triton.jit
def _embedding_sum(
    gradient,
    totals,
    text_of_row,
    means,
    scales,
    pulls,
    embedded,
    members,
    slot,
    begin,
    end,
    embedding: tl.constexpr,
    block_embedding: tl.constexpr,
    lines: tl.constexpr,
):
    """Return what some rows of token ``slot`` give to its embedding's gradient."""
    width: tl.constexpr = embedding + 768
    line = tl.arange(0, lines)
    column = tl.arange(0, block_embedding)
    total = tl.zeros((lines, block_embedding), dtype=tl.float32)
    all_over = tl.zeros((lines,), dtype=tl.float32)
    along = tl.zeros((lines,), dtype=tl.float32)
    known = tl.load(
        embedded + slot.to(tl.int64) * embedding + column, mask=column < embedding, other=0.0
    ).to(tl.float32)
    for start in range(begin, end, lines):
        inside = start + line < end
        row = tl.load(members + start + line, mask=inside, other=0)
        text = tl.load(text_of_row + row, mask=inside, other=0).to(tl.int64)
        scale = tl.load(scales + row, mask=inside, other=0.0)
        mean = tl.load(means + row, mask=inside, other=0.0)
        pull = tl.load(pulls + row, mask=inside, other=0.0)
        own = tl.load(
            gradient + text[:, None] * width + column[None, :],
            mask=inside[:, None] & (column < embedding)[None, :],
            other=0.0,
        )
        total += own * scale[:, None]
        all_over += pull * mean - scale * tl.load(totals + text, mask=inside, other=0.0) / width
        along += pull
    return tl.sum(total, 0) + tl.sum(all_over, 0) - known * tl.sum(along, 0)


@triton.jit(do_not_specialize=["slots"])
def _embedding_parts_kernel(
    gradient,
    totals,
    text_of_row,
    means,
    scales,
    pulls,
    embedded,
    members,
    begins,
    part_slot,
    first_part,
    partial,
    slots,
    part: tl.constexpr,
    embedding: tl.constexpr,
    block_embedding: tl.constexpr,
    lines: tl.constexpr,
):
    """Add up what the rows of one part of a frequent token give."""
    number = tl.program_id(0)
    slot = tl.load(part_slot + number)
    if slot < slots:
        column = tl.arange(0, block_embedding)
        begin = tl.load(begins + slot) + (number - tl.load(first_part + slot)) * part
        end = tl.minimum(begin + part, tl.load(begins + slot + 1))
        total = _embedding_sum(
            gradient,
            totals,
            text_of_row,
            means,
            scales,
            pulls,
            embedded,
            members,
            slot,
            begin,
            end,
            embedding,
            block_embedding,
            lines,
        )
        at = partial + number.to(tl.int64) * embedding + column
        tl.store(at, total, mask=column < embedding)


@triton.jit
def _embedding_slots_kernel(
    gradient,
    totals,
    text_of_row,
    means,
    scales,
    pulls,
    embedded,
    members,
    begins,
    first_part,
    partial,
    found,
    part: tl.constexpr,
    embedding: tl.constexpr,
    block_embedding: tl.constexpr,
    lines: tl.constexpr,
):
    """Add up what the rows of a token give, or its parts."""
    slot = tl.program_id(0)
    column = tl.arange(0, block_embedding)
    begin = tl.load(begins + slot)
    end = tl.load(begins + slot + 1)
    at = found + slot.to(tl.int64) * embedding + column
    if end - begin <= part:
        total = _embedding_sum(
            gradient,
            totals,
            text_of_row,
            means,
            scales,
            pulls,
            embedded,
            members,
            slot,
            begin,
            end,
            embedding,
            block_embedding,
            lines,
        )
        tl.store(at, total, mask=column < embedding)
    else:
        first = tl.load(first_part + slot)
        count = (end - begin + part - 1) // part
        total = _parts_sum(partial, first, count, embedding, column, block_embedding, lines)
        tl.store(at, total, mask=column < embedding)


def embedding_sums(
    gradient: torch.Tensor,
    totals: torch.Tensor,
    text_of_row: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    pulls: torch.Tensor,
    embedded: torch.Tensor,
    groups: Groups,
    tiles: Tiles,
) -> torch.Tensor:
    """Return the gradient of the tokens' embeddings, shape (slots, embedding), float32.

    Arguments are those and the results of ``normalise_backward``.
    """
    parts, embedding = groups.part_slot.shape[0], embedded.shape[1]
    partial = gradient.new_empty(parts, embedding)
    found = gradient.new_empty(groups.slots, embedding)
    shared = (gradient, totals, text_of_row, means, scales, pulls, embedded)
    named = {
        "part": groups.part,
        "embedding": embedding,
        "block_embedding": triton.next_power_of_2(embedding),
        "lines": tiles.lines,
        "num_warps": 4,
    }
    if parts:
        _embedding_parts_kernel[(parts,)](
            *shared,
            groups.members,
            groups.begins,
            groups.part_slot,
            groups.first_part,
            partial,
            groups.slots,
            **named,
        )
    if groups.slots:
        _embedding_slots_kernel[(groups.slots,)](
            *shared, groups.members, groups.begins, groups.first_part, partial, found, **named
        )
    return found
