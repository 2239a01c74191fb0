"""Triton kernels of a transformer's layer over a flat row of tokens (``fused_layers`` calls them).

Each reads and writes a token's row as few times as can be, and adds up the gradients of biases and
gains on the way. Such sums are float32: one row of ``Sums`` for each program, always taken in the
same order. Attention goes over blocks of neighbouring tokens, whatever texts they belong to: many
short texts fill a block as well as a part of a long one does. Back it goes over whole texts, where
they are short enough for the gradients of all their queries to lie in registers.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import triton
import triton.language as tl

from clrelkt.encoders.transformer.product_kernels import GELU_PRODUCTS, GeluProducts
from clrelkt.encoders.transformer.text_blocks import Spans

__all__ = [
    "LayerTiles",
    "Moments",
    "Sums",
    "add_norm",
    "add_norm_backward",
    "attend",
    "attend_backward",
    "gelu_backward",
]

_LOG2_E = 1.4426950408889634
_COLUMNS = 1024
_PULLED = 64
_BLOCK = 64
_WHOLE_WIDTH = 64
_WHOLE_TILES = 3


@dataclass(frozen=True, slots=True)
class LayerTiles:
    """How the kernels cut up their work.

    ``lines`` rows are normalised at once; ``programs`` share the rows of a batch where gradients
    are summed (four for each multiprocessor of an H100 or H200). Attention compares ``block``
    tokens with ``block`` others at a time; back it takes texts of up to ``whole`` tokens, which are
    at most three blocks, as a whole. Without ``gelu_products`` the device's library multiplies and
    kernels of their own do the GELU.
    """

    lines: int = 2
    programs: int = 528
    block: int = _BLOCK
    whole: int = 0
    warps: int = 4
    stages: int = 3
    gelu_products: GeluProducts | None = GELU_PRODUCTS

    def products_for(self, states: torch.Tensor, columns: int) -> GeluProducts | None:
        """Return how ``states`` times ``columns`` others are multiplied up to the GELU.

        None where the library's product and kernels of their own for the GELU are better.
        """
        found = self.gelu_products
        return found if found is not None and found.suit(states, columns) else None

    @classmethod
    def of(cls, head_width: int) -> Self:
        """Return what serves heads of a width."""
        # Another's gradients fill no tile of the matrix units, or more than the registers.
        return cls(whole=_WHOLE_TILES * _BLOCK) if head_width == _WHOLE_WIDTH else cls()


class Moments(NamedTuple):
    """What is kept of a LayerNorm: its input (rows, width); means and scales (rows,), float32."""

    summed: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor


class Sums:
    """Sums over rows of several gradients beside each other, ``columns`` in all.

    Each of a kernel's programs fills a row of ``table`` (programs, columns), float32.
    """

    def __init__(self, like: torch.Tensor, columns: int, programs: int) -> None:
        self.rows = like.shape[0]
        self.programs = min(programs, self.rows)
        self.table = like.new_empty((self.programs, columns), dtype=torch.float32)

    @property
    def span(self) -> int:
        """Rows of a program."""
        return int(triton.cdiv(self.rows, self.programs))

    def total(self, to: torch.Tensor) -> None:
        """Put the sums into ``to`` (columns,)."""
        torch.sum(self.table, 0, out=to)


@triton.jit(do_not_specialize=["rows"])
def _add_norm_kernel(
    states,
    added,
    added_bias,
    gain,
    bias,
    output,
    summed,
    means,
    scales,
    rows,
    epsilon,
    width: tl.constexpr,
    block: tl.constexpr,
    lines: tl.constexpr,
    keep: tl.constexpr,
):
    """Add two rows and a bias, and normalise the sum."""
    row = tl.program_id(0) * lines + tl.arange(0, lines)
    column = tl.arange(0, block)
    real = column < width
    inside = (row < rows)[:, None] & real[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    found = tl.load(states + at, mask=inside, other=0.0).to(tl.float32)
    found += tl.load(added + at, mask=inside, other=0.0).to(tl.float32)
    found += tl.load(added_bias + column, mask=real, other=0.0).to(tl.float32)[None, :]
    # What is kept is what is normalised: the rounded sum.
    kept = found.to(output.dtype.element_ty)
    found = kept.to(tl.float32)
    mean = tl.sum(found, 1) / width
    centred = tl.where(real[None, :], found - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / width + epsilon)
    own = tl.load(gain + column, mask=real, other=0.0).to(tl.float32)
    normal = centred * scale[:, None] * own[None, :]
    normal += tl.load(bias + column, mask=real, other=0.0).to(tl.float32)[None, :]
    tl.store(output + at, normal.to(output.dtype.element_ty), mask=inside)
    if keep:
        tl.store(summed + at, kept, mask=inside)
        tl.store(means + row, mean, mask=row < rows)
        tl.store(scales + row, scale, mask=row < rows)


def add_norm(
    states: torch.Tensor,
    added: torch.Tensor,
    added_bias: torch.Tensor,
    gain: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    tiles: LayerTiles,
    *,
    keep: bool,
    to: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Moments | None]:
    """Return the LayerNorm of ``states`` + ``added`` + ``added_bias``, shape (rows, width).

    With ``keep`` also what ``add_norm_backward`` needs. Both inputs lie row behind row, and so does
    ``to``, which the result is put into.
    """
    rows, width = states.shape
    output = torch.empty_like(states) if to is None else to
    moments = None
    if keep:
        numbers = states.new_empty((2, rows), dtype=torch.float32)
        moments = Moments(torch.empty_like(states), numbers[0], numbers[1])
    _add_norm_kernel[(triton.cdiv(rows, tiles.lines),)](
        states,
        added,
        added_bias,
        gain,
        bias,
        output,
        output if moments is None else moments.summed,
        output if moments is None else moments.mean,
        output if moments is None else moments.scale,
        rows,
        epsilon,
        width=width,
        block=triton.next_power_of_2(width),
        lines=tiles.lines,
        keep=keep,
        num_warps=4,
    )
    return output, moments


@triton.jit(do_not_specialize=["rows", "span"])
def _add_norm_backward_kernel(
    grad_output,
    summed,
    means,
    scales,
    gain,
    grad_summed,
    sums,
    rows,
    span,
    total_columns: tl.constexpr,
    first: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    lines: tl.constexpr,
):
    """Go back through the LayerNorm of some rows."""
    column = tl.arange(0, block)
    real = column < width
    factor = tl.load(gain + column, mask=real, other=0.0).to(tl.float32)[None, :]
    grad_before = tl.zeros((lines, block), dtype=tl.float32)
    grad_gain = tl.zeros((lines, block), dtype=tl.float32)
    grad_bias = tl.zeros((lines, block), dtype=tl.float32)
    begin = tl.program_id(0) * span
    end = tl.minimum(begin + span, rows)
    for start in range(begin, end, lines):
        row = start + tl.arange(0, lines)
        there = row < end
        inside = there[:, None] & real[None, :]
        at = row.to(tl.int64)[:, None] * width + column[None, :]
        own = tl.load(grad_output + at, mask=inside, other=0.0).to(tl.float32)
        normal = tl.load(summed + at, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(means + row, mask=there, other=0.0)
        scale = tl.load(scales + row, mask=there, other=0.0)
        normal = tl.where(inside, (normal - mean[:, None]) * scale[:, None], 0.0)
        grad_gain += own * normal
        grad_bias += own
        own = own * factor
        along = tl.sum(own * normal, 1) / width
        level = tl.sum(own, 1) / width
        own = (own - level[:, None] - normal * along[:, None]) * scale[:, None]
        own = tl.where(inside, own, 0.0)
        grad_before += own
        tl.store(grad_summed + at, own.to(grad_summed.dtype.element_ty), mask=inside)
    to = sums + tl.program_id(0).to(tl.int64) * total_columns + first + column
    tl.store(to, tl.sum(grad_before, 0), mask=real)
    tl.store(to + width, tl.sum(grad_gain, 0), mask=real)
    tl.store(to + 2 * width, tl.sum(grad_bias, 0), mask=real)


def add_norm_backward(
    grad_output: torch.Tensor,
    moments: Moments,
    gain: torch.Tensor,
    sums: Sums,
    first: int,
    tiles: LayerTiles,
    to: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the gradient of either of the two that were added, shape (rows, width), in ``to``.

    ``sums`` gets, from column ``first`` on, those of the added bias, of the gain and of the bias.
    """
    rows, width = grad_output.shape
    grad_summed = torch.empty_like(grad_output) if to is None else to
    _add_norm_backward_kernel[(sums.programs,)](
        grad_output,
        moments.summed,
        moments.mean,
        moments.scale,
        gain,
        grad_summed,
        sums.table,
        rows,
        sums.span,
        total_columns=sums.table.shape[1],
        first=first,
        width=width,
        block=triton.next_power_of_2(width),
        lines=tiles.lines,
        num_warps=4,
    )
    return grad_summed


@triton.jit(do_not_specialize=["rows", "span"])
def _gelu_backward_kernel(
    grad_output,
    before,
    grad_before,
    sums,
    rows,
    span,
    total_columns: tl.constexpr,
    first: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Go back through the GELU of some rows and columns."""
    column = tl.program_id(1) * block + tl.arange(0, block)
    real = column < width
    grad_bias = tl.zeros((block,), dtype=tl.float32)
    begin = tl.program_id(0) * span
    end = tl.minimum(begin + span, rows)
    for row in range(begin, end):
        at = tl.cast(row, tl.int64) * width + column
        own = tl.load(grad_output + at, mask=real, other=0.0).to(tl.float32)
        value = tl.load(before + at, mask=real, other=0.0).to(tl.float32)
        # The normal distribution's function, and the number times its density.
        below = 0.5 * (1.0 + tl.erf(value * 0.7071067811865476))
        density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
        own = own * (below + value * density)
        grad_bias += own
        tl.store(grad_before + at, own.to(grad_before.dtype.element_ty), mask=real)
    to = sums + tl.program_id(0).to(tl.int64) * total_columns + first + column
    tl.store(to, grad_bias, mask=real)


def gelu_backward(
    grad_output: torch.Tensor, before: torch.Tensor, sums: Sums, first: int
) -> torch.Tensor:
    """Return the gradient of ``before``, shape (rows, width), through the exact GELU.

    ``sums`` gets that of a bias that was added to it, from column ``first`` on.
    """
    rows, width = before.shape
    grad_before = torch.empty_like(before)
    block = min(_COLUMNS, triton.next_power_of_2(width))
    _gelu_backward_kernel[(sums.programs, triton.cdiv(width, block))](
        grad_output,
        before,
        grad_before,
        sums.table,
        rows,
        sums.span,
        total_columns=sums.table.shape[1],
        first=first,
        width=width,
        block=block,
        num_warps=4,
    )
    return grad_before


@triton.jit
def _rows(source, row, stop, stride, width: tl.constexpr):
    """Read some rows of a head; those from ``stop`` on are 0."""
    at = row[:, None] * stride + tl.arange(0, width)[None, :]
    return tl.load(source + at, mask=(row < stop)[:, None], other=0.0)


@triton.jit
def _texts_of(starts, ends, first, stop, block: tl.constexpr):
    """Return a block's rows, which of them there are, and where their texts begin and end.

    The last two are where the first of the texts begins and the last ends.
    """
    row = first + tl.arange(0, block)
    there = row < stop
    start = tl.load(starts + row, mask=there, other=0)
    end = tl.load(ends + row, mask=there, other=0)
    return row, there, start, end, tl.load(starts + first), tl.load(ends + stop - 1)


@triton.jit
def _put_rows(target, found, row, stop, stride, width: tl.constexpr):
    """Write some rows of a head."""
    at = row[:, None] * stride + tl.arange(0, width)[None, :]
    tl.store(target + at, found.to(target.dtype.element_ty), mask=(row < stop)[:, None])


@triton.jit(do_not_specialize=["tokens"])
def _attend_kernel(
    packed,
    starts,
    ends,
    blocks,
    output,
    levels,
    tokens,
    scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Attend from a block of tokens, with one head, to all tokens of their texts."""
    first = tl.load(blocks + tl.program_id(0))
    stop = tl.load(blocks + tl.program_id(0) + 1)
    head = tl.program_id(1)
    stride: tl.constexpr = 3 * heads * width
    row, there, start, end, low, high = _texts_of(starts, ends, first, stop, block)
    packed += head * width
    query = _rows(packed, row.to(tl.int64), stop, stride, width)
    most = tl.full((block,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((block,), dtype=tl.float32)
    found = tl.zeros((block, width), dtype=tl.float32)
    for begin in range(low, high, block):
        other = begin + tl.arange(0, block)
        key = _rows(packed + heads * width, other.to(tl.int64), high, stride, width)
        value = _rows(packed + 2 * heads * width, other.to(tl.int64), high, stride, width)
        scores = tl.dot(query, tl.trans(key)) * scale
        seen = (other[None, :] >= start[:, None]) & (other[None, :] < end[:, None])
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        # A token may have none of its text among the others yet.
        level = tl.where(higher == -float("inf"), 0.0, higher)
        shares = tl.exp2(scores - level[:, None])
        less = tl.exp2(most - level)
        total = total * less + tl.sum(shares, 1)
        found = tl.dot(shares.to(value.dtype), value, found * less[:, None])
        most = higher
    # Rows behind the block's last token see nothing.
    total = tl.where(there, total, 1.0)
    found = found / total[:, None]
    _put_rows(output + head * width, found, row.to(tl.int64), stop, heads * width, width)
    tl.store(levels + head.to(tl.int64) * tokens + row, most + tl.log2(total), mask=there)


def attend(
    packed: torch.Tensor, spans: Spans, heads: int, tiles: LayerTiles
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention within each text, shape (tokens, width), and the logarithms of its sums.

    ``packed`` (tokens, 3 * width) holds queries, keys and values, head behind head. The logarithms,
    of base 2, have shape (heads, tokens) and are float32.
    """
    tokens, columns = packed.shape
    width = columns // 3
    output = packed.new_empty((tokens, width))
    levels = packed.new_empty((heads, tokens), dtype=torch.float32)
    each = width // heads
    _attend_kernel[(spans.blocks.shape[0] - 1, heads)](
        packed,
        spans.starts,
        spans.ends,
        spans.blocks,
        output,
        levels,
        tokens,
        each**-0.5 * _LOG2_E,
        heads=heads,
        width=each,
        block=tiles.block,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return output, levels


@triton.jit
def _whole_backward(
    packed,
    output,
    grad_output,
    levels,
    starts,
    ends,
    grad_packed,
    to,
    first,
    stop,
    scale,
    log_scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    count: tl.constexpr,
    stages: tl.constexpr,
):
    """Go back through whole texts: ``count`` blocks of queries at once, one walk over the keys.

    Rows are counted from the texts' first one, where all pointers point to. The gradients of keys
    and values lie transposed: a tile of the matrix units has 64 rows, and these have ``width``.
    """
    stride: tl.constexpr = 3 * heads * width
    step: tl.constexpr = block // 2
    queries: tl.tuple = ()
    pulled: tl.tuple = ()
    own_levels: tl.tuple = ()
    pulls: tl.tuple = ()
    own_starts: tl.tuple = ()
    own_ends: tl.tuple = ()
    grads: tl.tuple = ()
    for part in tl.static_range(count):
        row = part * block + tl.arange(0, block)
        there = row < stop
        grad_found = _rows(grad_output, row, stop, stride // 3, width)
        found = _rows(output, row, stop, stride // 3, width).to(tl.float32)
        queries += (_rows(packed, row, stop, stride, width),)
        pulled += (grad_found,)
        pulls += (tl.sum(found * grad_found.to(tl.float32), 1),)
        own_levels += (tl.load(levels + row, mask=there, other=0.0),)
        own_starts += (tl.load(starts + row, mask=there, other=0) - first,)
        own_ends += (tl.load(ends + row, mask=there, other=0) - first,)
        grads += (tl.zeros((block, width), dtype=tl.float32),)
    key_sum = tl.zeros((width,), dtype=tl.float32)
    value_sum = tl.zeros((width,), dtype=tl.float32)
    for begin in tl.range(0, stop, step, num_stages=stages):
        other = begin + tl.arange(0, step)
        key = _rows(packed + heads * width, other, stop, stride, width)
        value = _rows(packed + 2 * heads * width, other, stop, stride, width)
        grad_key = tl.zeros((width, step), dtype=tl.float32)
        grad_value = tl.zeros((width, step), dtype=tl.float32)
        next_grads: tl.tuple = ()
        for part in tl.static_range(count):
            scores = tl.dot(queries[part], tl.trans(key)) * log_scale - own_levels[part][:, None]
            grad_shares = tl.dot(pulled[part], tl.trans(value)) - pulls[part][:, None]
            if count == 1:
                # Only a single block can have several texts.
                seen = other[None, :] >= own_starts[part][:, None]
                seen &= other[None, :] < own_ends[part][:, None]
            else:
                seen = (other < stop)[None, :]
            shares = tl.where(seen, tl.exp2(scores), 0.0)
            grad_value = tl.dot(tl.trans(pulled[part]), shares.to(value.dtype), grad_value)
            grad_scores = (shares * grad_shares).to(value.dtype)
            # In this order: with the next product first ptxas lets none overlap (its C7515).
            next_grads += (tl.dot(grad_scores, key, grads[part]),)
            grad_key = tl.dot(tl.trans(queries[part]), grad_scores, grad_key)
        grads = next_grads
        grad_key *= scale
        key_sum += tl.sum(grad_key, 1)
        value_sum += tl.sum(grad_value, 1)
        grad_key = tl.trans(grad_key.to(key.dtype))
        grad_value = tl.trans(grad_value.to(key.dtype))
        _put_rows(grad_packed + heads * width, grad_key, other, stop, stride, width)
        _put_rows(grad_packed + 2 * heads * width, grad_value, other, stop, stride, width)
    query_sum = tl.zeros((width,), dtype=tl.float32)
    for part in tl.static_range(count):
        grad_query = grads[part] * scale
        query_sum += tl.sum(grad_query, 0)
        row = part * block + tl.arange(0, block)
        _put_rows(grad_packed, grad_query, row, stop, stride, width)
    tl.store(to, query_sum)
    tl.store(to + heads * width, key_sum)
    tl.store(to + 2 * heads * width, value_sum)


@triton.jit(do_not_specialize=["tokens"])
def _attend_whole_backward_kernel(
    packed,
    output,
    grad_output,
    levels,
    starts,
    ends,
    wholes,
    grad_packed,
    sums,
    tokens,
    scale,
    log_scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    stages: tl.constexpr,
):
    """Go back through the attention within whole texts, of up to three blocks, with one head."""
    head = tl.program_id(0)
    first = tl.load(wholes + 2 * tl.program_id(1))
    stop = tl.load(wholes + 2 * tl.program_id(1) + 1) - first
    row = first.to(tl.int64) * (heads * width)
    packed += 3 * row + head * width
    grad_packed += 3 * row + head * width
    output += row + head * width
    grad_output += row + head * width
    levels += head.to(tl.int64) * tokens + first
    starts += first
    ends += first
    to = sums + tl.program_id(1).to(tl.int64) * (3 * heads * width)
    to += head * width + tl.arange(0, width)
    if stop <= block:
        _whole_backward(
            packed, output, grad_output, levels, starts, ends, grad_packed, to, first, stop,
            scale, log_scale, heads, width, block, 1, stages,
        )  # fmt: skip
    elif stop <= 2 * block:
        _whole_backward(
            packed, output, grad_output, levels, starts, ends, grad_packed, to, first, stop,
            scale, log_scale, heads, width, block, 2, stages,
        )  # fmt: skip
    else:
        _whole_backward(
            packed, output, grad_output, levels, starts, ends, grad_packed, to, first, stop,
            scale, log_scale, heads, width, block, 3, stages,
        )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])
def _pull_kernel(
    output,
    grad_output,
    pulls,
    tokens,
    heads: tl.constexpr,
    width: tl.constexpr,
    lines: tl.constexpr,
):
    """Multiply outputs with their gradients: what a softmax's gradient needs of a token."""
    row = (tl.program_id(0) * lines + tl.arange(0, lines)).to(tl.int64)
    head = tl.program_id(1)
    own = _rows(output + head * width, row, tokens, heads * width, width).to(tl.float32)
    own *= _rows(grad_output + head * width, row, tokens, heads * width, width).to(tl.float32)
    tl.store(pulls + head.to(tl.int64) * tokens + row, tl.sum(own, 1), mask=row < tokens)


@triton.jit(do_not_specialize=["tokens"])
def _attend_backward_kernel(
    packed,
    grad_output,
    levels,
    pulls,
    starts,
    ends,
    parts,
    grad_packed,
    sums,
    tokens,
    scale,
    log_scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Go back through the attention to and from a block of tokens, with one head."""
    first = tl.load(parts + 2 * tl.program_id(0))
    stop = tl.load(parts + 2 * tl.program_id(0) + 1)
    head = tl.program_id(1)
    stride: tl.constexpr = 3 * heads * width
    row, there, start, end, low, high = _texts_of(starts, ends, first, stop, block)
    own = row.to(tl.int64)
    packed += head * width
    grad_packed += head * width
    grad_output += head * width
    levels += head.to(tl.int64) * tokens
    pulls += head.to(tl.int64) * tokens
    key = _rows(packed + heads * width, own, stop, stride, width)
    value = _rows(packed + 2 * heads * width, own, stop, stride, width)
    grad_key = tl.zeros((block, width), dtype=tl.float32)
    grad_value = tl.zeros((block, width), dtype=tl.float32)
    for begin in range(low, high, block):
        other = begin + tl.arange(0, block)
        query = _rows(packed, other.to(tl.int64), high, stride, width)
        grad_found = _rows(grad_output, other.to(tl.int64), high, heads * width, width)
        level = tl.load(levels + other, mask=other < high, other=0.0)
        pull = tl.load(pulls + other, mask=other < high, other=0.0)
        seen = (other[None, :] >= start[:, None]) & (other[None, :] < end[:, None])
        scores = tl.dot(key, tl.trans(query)) * log_scale - level[None, :]
        shares = tl.where(seen, tl.exp2(scores), 0.0)
        grad_value = tl.dot(shares.to(value.dtype), grad_found, grad_value)
        grad_shares = tl.dot(value, tl.trans(grad_found)) - pull[None, :]
        grad_scores = (shares * grad_shares).to(value.dtype)
        grad_key = tl.dot(grad_scores, query, grad_key)
    grad_key *= scale
    to = sums + tl.program_id(0).to(tl.int64) * stride + head * width + tl.arange(0, width)
    _put_rows(grad_packed + heads * width, grad_key, own, stop, stride, width)
    _put_rows(grad_packed + 2 * heads * width, grad_value, own, stop, stride, width)
    tl.store(to + heads * width, tl.sum(grad_key, 0))
    tl.store(to + 2 * heads * width, tl.sum(grad_value, 0))
    query = _rows(packed, own, stop, stride, width)
    grad_found = _rows(grad_output, own, stop, heads * width, width)
    level = tl.load(levels + row, mask=there, other=0.0)
    pull = tl.load(pulls + row, mask=there, other=0.0)
    grad_query = tl.zeros((block, width), dtype=tl.float32)
    for begin in range(low, high, block):
        other = begin + tl.arange(0, block)
        key = _rows(packed + heads * width, other.to(tl.int64), high, stride, width)
        value = _rows(packed + 2 * heads * width, other.to(tl.int64), high, stride, width)
        seen = (other[None, :] >= start[:, None]) & (other[None, :] < end[:, None])
        scores = tl.dot(query, tl.trans(key)) * log_scale - level[:, None]
        shares = tl.where(seen, tl.exp2(scores), 0.0)
        grad_shares = tl.dot(grad_found, tl.trans(value)) - pull[:, None]
        grad_scores = (shares * grad_shares).to(value.dtype)
        grad_query = tl.dot(grad_scores, key, grad_query)
    grad_query *= scale
    _put_rows(grad_packed, grad_query, own, stop, stride, width)
    tl.store(to, tl.sum(grad_query, 0))


def attend_backward(
    packed: torch.Tensor,
    output: torch.Tensor,
    levels: torch.Tensor,
    grad_output: torch.Tensor,
    spans: Spans,
    total: torch.Tensor,
    tiles: LayerTiles,
) -> torch.Tensor:
    """Return the gradient of ``packed``, and put its sum over all tokens into ``total``.

    ``output`` and ``levels`` are what ``attend`` gave; ``total`` has shape (3 * width,).
    """
    tokens, columns = packed.shape
    heads = levels.shape[0]
    each = columns // 3 // heads
    grad_packed = torch.empty_like(packed)
    wholes, parts = spans.wholes.shape[0], spans.parts.shape[0]
    sums = packed.new_empty((wholes + parts, columns), dtype=torch.float32)
    if wholes:
        _attend_whole_backward_kernel[(heads, wholes)](
            packed,
            output,
            grad_output,
            levels,
            spans.starts,
            spans.ends,
            spans.wholes,
            grad_packed,
            sums,
            tokens,
            each**-0.5,
            each**-0.5 * _LOG2_E,
            heads=heads,
            width=each,
            block=tiles.block,
            stages=tiles.stages,
            num_warps=tiles.warps,
        )
    if parts:
        pulls = torch.empty_like(levels)
        _pull_kernel[(triton.cdiv(tokens, _PULLED), heads)](
            output, grad_output, pulls, tokens, heads=heads, width=each, lines=_PULLED, num_warps=4
        )
        _attend_backward_kernel[(parts, heads)](
            packed,
            grad_output,
            levels,
            pulls,
            spans.starts,
            spans.ends,
            spans.parts,
            grad_packed,
            sums[wholes:],
            tokens,
            each**-0.5,
            each**-0.5 * _LOG2_E,
            heads=heads,
            width=each,
            block=tiles.block,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    torch.sum(sums, 0, out=total)
    return grad_packed
