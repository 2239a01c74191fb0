"""mUSE's forward and backward pass over all rows of a batch at once, in kernels made for it.

It computes what ``forward`` computes, in another order and with the rounding of bfloat16,
float16 or TF32: for float32 without TF32, float64, CPUs and where there is no Triton there is
``forward``. Nothing in it makes the host wait for the GPU: sizes that only the GPU knows, such
as the number of distinct tokens, are replaced by bounds that the host knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from clrelkt.encoders.muse.forward import BRANCH_WIDTH, BRANCHES, GAP
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.triton_kernels import has_kernels, on_device

if TYPE_CHECKING:
    from clrelkt.encoders.muse.kernels import Groups, Tiles

__all__ = ["FusedLayout", "RowWeights", "fused_type", "pool_rows"]


def fused_type(table: torch.Tensor) -> torch.dtype | None:
    """Return the type in which rows are kept where ``table`` lies, or None: not here."""
    kind = table.device.type
    if kind != "cuda" or table.dtype != torch.float32 or not has_kernels(table.device):
        return None
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return torch.float32 if torch.get_float32_matmul_precision() != "highest" else None


@dataclass(frozen=True, slots=True)
class FusedLayout:
    """Where each token of a batch stands in the gapped row.

    ``distinct`` (slots,) holds token ids: with gradients each that occurs once, and behind them
    some that do not matter; without, every token's. None stands for the whole vocabulary.
    ``slots`` (rows,) int32 is the index into them, or their number for a gap row. ``text_of_row``
    (rows,) int32 is right for tokens.
    ``first_row`` and ``lengths`` (texts,) say where a text begins and how long it is. ``groups``
    are each slot's rows, where gradients are wanted.
    """

    distinct: torch.Tensor | None
    slots: torch.Tensor
    text_of_row: torch.Tensor
    first_row: torch.Tensor
    lengths: torch.Tensor
    groups: Groups | None

    @classmethod
    def of(cls, batch: RaggedBatch, vocabulary: int, *, part: int = 128) -> FusedLayout:
        """Lay out a batch of token ids below ``vocabulary``.

        Where gradients are enabled the rows of a token are summed ``part`` at a time.
        """
        device, tokens, texts = batch.token_ids.device, batch.tokens, len(batch)
        numbers = torch.arange(texts, device=device)
        text_of_token = batch.text_of_token
        token_rows = torch.arange(tokens, device=device) + (text_of_token + 1) * GAP
        rows = _rounded(tokens + (texts + 1) * GAP)
        found = _slots(batch.token_ids, vocabulary)
        slots = torch.full((rows,), found.count, device=device, dtype=torch.int32)
        slots[token_rows] = found.of_token.int()
        text_of_row = torch.zeros(rows, device=device, dtype=torch.int32)
        text_of_row[token_rows] = text_of_token.int()
        groups = None
        if found.sorted is not None:
            from clrelkt.encoders.muse.kernels import Groups

            order, of_ordered = found.sorted
            slot_numbers = torch.arange(found.count + 1, device=device, dtype=of_ordered.dtype)
            begins = torch.searchsorted(of_ordered, slot_numbers)
            groups = Groups.of(token_rows[order], begins, part)
        return cls(
            distinct=found.distinct,
            slots=slots,
            text_of_row=text_of_row,
            first_row=batch.lengths.cumsum(0) - batch.lengths + (numbers + 1) * GAP,
            lengths=batch.lengths,
            groups=groups,
        )


@dataclass(frozen=True, slots=True)
class _Slots:
    """A bound on the number of distinct ids, the ids, and each token's index into them.

    ``sorted`` lists the tokens slot by slot, and their slots, shapes (tokens,); None: nobody asked.
    """

    count: int
    distinct: torch.Tensor | None
    of_token: torch.Tensor
    sorted: tuple[torch.Tensor, torch.Tensor] | None


def _slots(token_ids: torch.Tensor, vocabulary: int) -> _Slots:
    tokens = token_ids.shape[0]
    whole = tokens >= vocabulary
    if not torch.is_grad_enabled():
        # To work on a token once for each time that it occurs costs less than to sort them.
        if whole:
            return _Slots(vocabulary, None, token_ids, None)
        return _Slots(tokens, token_ids, torch.arange(tokens, device=token_ids.device), None)
    # Half as many bits to sort by.
    ids, order = torch.sort(token_ids.int(), stable=True)
    if whole:
        return _Slots(vocabulary, None, token_ids, (order, ids))
    new = functional.pad(ids[1:] != ids[:-1], (1, 0), value=False)
    in_order = new.cumsum(0)
    distinct = token_ids.new_zeros(tokens).scatter_(0, in_order, ids.to(token_ids.dtype))
    of_token = torch.empty_like(in_order).scatter_(0, order, in_order)
    return _Slots(tokens, distinct, of_token, (order, in_order))


def _rounded(rows: int) -> int:
    """Return the next of few sizes, at most a sixteenth more or less than 64 more."""
    step = max(64, 1 << max(rows.bit_length() - 5, 0))
    return -(-rows // step) * step


@dataclass(frozen=True, slots=True)
class RowWeights:
    """The parameters that decide the texts' sums, as ``MuseNetwork`` has them."""

    projection: torch.Tensor
    projection_bias: torch.Tensor
    branch_gain: torch.Tensor
    branch_bias: torch.Tensor
    convolution_bias_1: torch.Tensor
    convolution_bias_2: torch.Tensor
    first_kernels: tuple[torch.Tensor, ...]
    second_kernels: tuple[torch.Tensor, ...]


def pool_rows(
    layout: FusedLayout,
    dtype: torch.dtype,
    embedded: torch.Tensor,
    weights: RowWeights,
    epsilon: float,
    tiles: Tiles | None = None,
) -> torch.Tensor:
    """Return what ``forward.pool_tokens`` returns, shape (texts, embedding + 768).

    ``embedded`` (slots, embedding) are the distinct tokens' embeddings, float32 as all weights.
    Tables and rows are kept and multiplied in ``dtype``, summed in float32.
    """
    with torch.autocast(embedded.device.type, enabled=False):
        pooled: torch.Tensor = _PoolRows.apply(
            layout,
            dtype,
            epsilon,
            tiles,
            embedded,
            weights.projection,
            weights.projection_bias,
            weights.branch_gain,
            weights.branch_bias,
            weights.convolution_bias_1,
            weights.convolution_bias_2,
            *weights.first_kernels,
            *weights.second_kernels,
        )  # type: ignore[no-untyped-call]
    return pooled


class _PoolRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: FusedLayout,
        dtype: torch.dtype,
        epsilon: float,
        tiles: Tiles | None,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        with on_device(tensors[0].device):
            return _forward(ctx, layout, dtype, epsilon, tiles, *tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with on_device(gradients[0].device):
            return None, None, None, None, *_backward(ctx, gradients[0].contiguous())


def _forward(
    ctx: Any,
    layout: FusedLayout,
    dtype: torch.dtype,
    epsilon: float,
    tiles: Tiles | None,
    *tensors: torch.Tensor,
) -> torch.Tensor:
    from clrelkt.encoders.muse import kernels

    exact, projection, projection_bias, gain, bias, bias_1, bias_2, *rest = tensors
    tiles = tiles or kernels.Tiles.of(dtype)
    embedded = exact.to(dtype)
    low = [kernel.to(dtype) for kernel in rest]
    sides = [kernel.permute(1, 0, 2).flatten(1) for kernel in low[: len(BRANCHES)]]
    seconds = low[len(BRANCHES) :]
    branches = torch.addmm(projection_bias.to(dtype), embedded, projection.to(dtype))
    projected = kernels.project(branches, gain, bias, epsilon, tiles)
    windows = [
        (projected[:, _branch(index)] @ side).view(-1, BRANCH_WIDTH)
        for index, side in enumerate(sides)
    ]
    hidden = kernels.first_convolution(layout.slots, windows, projected, bias_1, BRANCHES, tiles)
    del windows
    output, moments = kernels.convolve(
        hidden, seconds, bias_2, layout.slots, embedded.shape[0], BRANCHES, tiles
    )
    pooled, means, scales = kernels.pool(
        layout.first_row,
        layout.lengths,
        layout.slots,
        embedded,
        exact.sum(1),
        torch.linalg.vecdot(exact, exact),
        output,
        moments,
        epsilon,
        tiles,
    )
    if layout.groups is not None and any(ctx.needs_input_grad):
        ctx.layout, ctx.tiles, ctx.epsilon = layout, tiles, epsilon
        ctx.hidden, ctx.output = hidden, output
        ctx.save_for_backward(
            embedded, branches, projected, projection, gain, means, scales, *sides, *seconds
        )
    return pooled


def _branch(index: int) -> slice:
    return slice(index * BRANCH_WIDTH, (index + 1) * BRANCH_WIDTH)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    from clrelkt.encoders.muse import kernels

    layout: FusedLayout = ctx.layout
    tiles: Tiles = ctx.tiles
    embedded, branches, projected, projection, gain, means, scales, *rest = ctx.saved_tensors
    sides, seconds = rest[: len(BRANCHES)], rest[len(BRANCHES) :]
    hidden, output = ctx.hidden, ctx.output
    ctx.hidden = ctx.output = None
    groups = layout.groups
    assert groups is not None
    grad_output, pulls, totals, grad_bias_2 = kernels.normalise_backward(
        layout.slots,
        layout.text_of_row,
        gradient,
        embedded,
        hidden,
        output,
        means,
        scales,
        tiles,
    )
    # Where the kernels are frozen their gradients are a third of the work, and not needed.
    wanted = ctx.needs_input_grad[-len(BRANCHES) :]
    grad_kernels = [
        kernels.kernel_gradient(hidden, output, branch, size, left, tiles) if needed else None
        for branch, ((size, left), needed) in enumerate(zip(BRANCHES, wanted, strict=True))
    ]
    grad_summed, grad_bias_1 = kernels.convolve_back(
        output, seconds, grad_output, hidden, projected, layout.slots, BRANCHES, tiles
    )
    del hidden, output
    by_token = kernels.token_sums(grad_output, groups, torch.float32, tiles)
    by_window = torch.empty_like(projected)
    grad_firsts = []
    for branch, ((size, left), side) in enumerate(zip(BRANCHES, sides, strict=True)):
        windows = kernels.token_sums(
            grad_summed, groups, projected.dtype, tiles, (branch, size, left)
        ).view(-1, size * BRANCH_WIDTH)
        by_window[:, _branch(branch)] = windows @ side.T
        apart = (projected[:, _branch(branch)].T @ windows).view(BRANCH_WIDTH, size, BRANCH_WIDTH)
        grad_firsts.append(apart.permute(1, 0, 2).to(gradient.dtype))
    grad_branches, sums = kernels.project_backward(
        branches, gain, by_token, by_window, ctx.epsilon, tiles
    )
    grad_embedded = kernels.embedding_sums(
        gradient,
        totals,
        layout.text_of_row,
        means,
        scales,
        pulls,
        embedded,
        groups,
        tiles,
    )
    grad_embedded += grad_branches @ projection.to(projected.dtype).T
    return (
        grad_embedded,
        (embedded.T @ grad_branches).to(gradient.dtype),
        *sums,
        grad_bias_1,
        grad_bias_2,
        *grad_firsts,
        *grad_kernels,
    )
