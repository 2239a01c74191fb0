"""mUSE's forward and backward pass over all rows of a batch at once, as a GPU might do best.

Not used unless asked for (``MuseNetwork.block_tokens`` None): on two H100s a first form of it, with
convolutions of cuDNN, was several times slower than ``muse_forward``. It computes what
``muse_forward`` computes, in another order. There is nothing in it that the host has to wait for:
sizes that only the GPU knows, such as the number of distinct tokens, are replaced by bounds that
the host knows. A convolution is a matrix product for each place of its window. All that is done row
by row stands in a few functions of plain tensor expressions, which are compiled into one pass over
the memory each for large training steps.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from clrelkt.encoders.muse_forward import BRANCH_WIDTH, BRANCHES, GAP
from clrelkt.encoders.ragged import RaggedBatch
from clrelkt.encoders.row_groups import RowGroups

__all__ = ["WholeLayout", "compiled_row_functions", "pool_rows"]

_COMPILED_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class WholeLayout:
    """Where each token of a batch stands in the gapped row.

    ``distinct`` (slots,) holds the token ids that occur, and behind them some that do not matter;
    None stands for the whole vocabulary. ``slots`` (rows,) is the index into them, or their number
    for a gap row; ``inside`` (rows,) tells
    tokens from gaps. ``text_of_row`` (rows,) is right for tokens. There are more gap rows at the
    end, so that only a few sizes occur.
    """

    distinct: torch.Tensor | None
    slots: torch.Tensor
    inside: torch.Tensor
    text_of_row: torch.Tensor
    by_slot: RowGroups
    by_text: RowGroups

    @classmethod
    def of(cls, batch: RaggedBatch, vocabulary: int) -> WholeLayout:
        """Lay out a batch of token ids below ``vocabulary``."""
        device, tokens, texts = batch.token_ids.device, batch.tokens, len(batch)
        ids, order = torch.sort(batch.token_ids, stable=True)
        most, distinct, slot_in_order = _distinct(ids, vocabulary)
        counts = ids.new_zeros(most).scatter_add_(0, slot_in_order, torch.ones_like(ids))
        token_rows = torch.arange(tokens, device=device) + (batch.text_of_token + 1) * GAP
        rows = _rounded(tokens + (texts + 1) * GAP)
        slots = ids.new_full((rows,), most)
        slots[token_rows[order]] = slot_in_order
        text_of_row = ids.new_zeros(rows)
        text_of_row[token_rows] = batch.text_of_token
        return cls(
            distinct=distinct,
            slots=slots,
            inside=(slots < most).unsqueeze(1),
            text_of_row=text_of_row,
            by_slot=RowGroups.of(token_rows[order], counts),
            by_text=RowGroups.of(token_rows, batch.lengths),
        )


def _distinct(ids: torch.Tensor, vocabulary: int) -> tuple[int, torch.Tensor | None, torch.Tensor]:
    """Return a bound on the number of distinct ids, those ids, and where each of ``ids`` stands.

    ``ids`` (tokens,) are in ascending order.
    """
    tokens = ids.shape[0]
    if torch.is_grad_enabled() and tokens >= vocabulary:
        return vocabulary, None, ids
    new = functional.pad(ids[1:] != ids[:-1], (1, 0), value=False)
    slots = new.cumsum(0)
    most = min(vocabulary, tokens)
    if tokens and not torch.is_grad_enabled():
        # Rows that do not matter would cost more than to wait once for a large batch.
        most = int(slots[-1]) + 1
    return most, ids.new_zeros(most).scatter_(0, slots, ids), slots


def _rounded(rows: int) -> int:
    """Return the next of few sizes, at most an eighth more."""
    step = max(64, 1 << max(rows.bit_length() - 4, 0))
    return -(-rows // step) * step


def pool_rows(
    layout: WholeLayout,
    embedded: torch.Tensor,
    projected: torch.Tensor,
    windows: tuple[torch.Tensor, ...],
    bias_1: torch.Tensor,
    kernels_2: tuple[torch.Tensor, ...],
    bias_2: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Do what ``muse_forward.pool_tokens`` does; arguments and result are the same.

    Under autocast rows are kept and multiplied in its type; means and variances are float32.
    """
    kind = embedded.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embedded.dtype
    with torch.autocast(kind, enabled=False):
        pooled: torch.Tensor = _PoolRows.apply(
            layout, epsilon, dtype, embedded, projected, bias_1, bias_2, *windows, *kernels_2
        )  # type: ignore[no-untyped-call]
    return pooled


class _PoolRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: WholeLayout,
        epsilon: float,
        dtype: torch.dtype,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        # What is compiled would look for the gradients of tensors that have them.
        embedded, projected, bias_1, bias_2, *rest = (tensor.detach() for tensor in tensors)
        count = len(BRANCHES)
        low = [tensor.to(dtype) for tensor in (embedded, projected, *rest)]
        windows = [
            table.view(-1, size, BRANCH_WIDTH)
            for table, (size, _) in zip(low[2 : 2 + count], BRANCHES, strict=True)
        ]
        kernels = low[2 + count :]
        run = _row_functions(layout.slots, training=any(ctx.needs_input_grad))
        hidden = run.first(layout.slots, layout.inside, windows, low[1], bias_1)
        convolved = [
            _convolve(rows, kernel, bias, left)
            for rows, kernel, bias, (_, left) in zip(
                hidden, kernels, torch.split(bias_2.to(dtype), BRANCH_WIDTH), BRANCHES, strict=True
            )
        ]
        exact = embedded.to(_exact(dtype))
        sums = functional.pad(exact.sum(1), (0, 1))
        squares = functional.pad((exact * exact).sum(1), (0, 1))
        width = embedded.shape[1] + projected.shape[1]
        output, mean, scale = run.normalise(
            layout.slots, layout.inside, hidden, convolved, sums, squares, width, epsilon
        )
        members = layout.by_text.members
        weights = scale[members]
        slots = layout.slots[members]
        parts = (
            layout.by_text.sum(low[0], slots, weights).to(exact.dtype),
            layout.by_text.sum(output, None, weights).to(exact.dtype),
        )
        means = layout.by_text.sum(mean.unsqueeze(1), None, weights)
        if any(ctx.needs_input_grad):
            ctx.layout, ctx.hidden, ctx.convolved = layout, hidden, convolved
            ctx.save_for_backward(embedded, low[0], low[1], mean, scale, *kernels)
        return torch.cat(parts, 1) - means

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        layout: WholeLayout = ctx.layout
        embedded, low_embedded, projected, mean, scale, *kernels = ctx.saved_tensors
        hidden, convolved = ctx.hidden, ctx.convolved
        ctx.hidden = ctx.convolved = None
        wanted = ctx.needs_input_grad[-len(BRANCHES) :]
        run = _row_functions(layout.slots, training=True)
        grad_output, grad_convolved, pull = run.normalise_backward(
            layout.slots,
            layout.text_of_row,
            gradient,
            gradient.sum(1),
            low_embedded,
            hidden,
            convolved,
            mean,
            scale,
        )
        del convolved
        exact = gradient.dtype
        grad_bias_2 = torch.cat([rows.sum(0, dtype=exact) for rows in grad_convolved])
        reached, grad_kernels = [], []
        for index, kernel in enumerate(kernels):
            left = BRANCHES[index][1]
            reached.append(_convolve_back(grad_convolved[index], kernel, left))
            own = None
            if wanted[index]:
                own = _kernel_gradient(grad_convolved[index], hidden[index], kernel.shape[0], left)
            grad_kernels.append(own)
        del grad_convolved
        grad_hidden, grad_summed = run.first_backward(
            layout.slots, layout.inside, reached, grad_output, hidden, projected
        )
        groups = layout.by_slot
        grad_projected = torch.cat([groups.sum(rows) for rows in grad_hidden], 1)
        grad_windows = [
            _window_gradient(groups, rows, size, left)
            for rows, (size, left) in zip(grad_summed, BRANCHES, strict=True)
        ]
        grad_embedded = _embedding_gradient(layout, gradient, embedded, mean, scale, pull)
        return (
            None,
            None,
            None,
            grad_embedded,
            functional.pad(grad_projected, (0, 0, 0, 1)),
            torch.cat([rows.sum(0, dtype=exact) for rows in grad_summed]),
            grad_bias_2,
            *grad_windows,
            *grad_kernels,
        )


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _shifted(rows: torch.Tensor, size: int, left: int) -> list[torch.Tensor]:
    """Return, for each place of a window, the rows that stand there, shape (rows, 256) each."""
    padded = functional.pad(rows, (0, 0, left, size - 1 - left))
    return [padded[place : place + rows.shape[0]] for place in range(size)]


def _convolve(
    rows: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, left: int
) -> torch.Tensor:
    total = bias.unsqueeze(0)
    for shifted, own in zip(_shifted(rows, kernel.shape[0], left), kernel, strict=True):
        total = torch.addmm(total, shifted, own)
    return total


def _convolve_back(gradient: torch.Tensor, kernel: torch.Tensor, left: int) -> torch.Tensor:
    """Return the gradient of a convolution's rows: a convolution the other way round."""
    size = kernel.shape[0]
    mirrored = kernel.flip(0).transpose(1, 2)
    return _convolve(gradient, mirrored, gradient.new_zeros(kernel.shape[1]), size - 1 - left)


def _kernel_gradient(
    gradient: torch.Tensor, rows: torch.Tensor, size: int, left: int
) -> torch.Tensor:
    return torch.stack([shifted.T @ gradient for shifted in _shifted(rows, size, left)])


def _window_gradient(groups: RowGroups, rows: torch.Tensor, size: int, left: int) -> torch.Tensor:
    shifted = [groups.sum(rows, groups.members - (place - left)) for place in range(size)]
    return functional.pad(torch.stack(shifted, 1).flatten(0, 1), (0, 0, 0, size))


def _embedding_gradient(
    layout: WholeLayout,
    gradient: torch.Tensor,
    embedded: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    pull: torch.Tensor,
) -> torch.Tensor:
    groups = layout.by_slot
    centred = gradient[:, : embedded.shape[1]] - gradient.mean(1, keepdim=True)
    members = groups.members
    spread = groups.sum(centred, layout.text_of_row[members], scale[members])
    pulls = groups.sum(torch.stack([pull, pull * mean], 1))
    return spread.addcmul_(embedded.to(spread.dtype), pulls[:, :1], value=-1).add_(pulls[:, 1:])


def _first(
    slots: torch.Tensor,
    inside: torch.Tensor,
    windows: Sequence[torch.Tensor],
    projected: torch.Tensor,
    bias: torch.Tensor,
) -> list[torch.Tensor]:
    """Return each branch's rows behind the first convolution, shape (rows, 256) each."""
    rows = slots.shape[0]
    padded = functional.pad(slots, (GAP, GAP), value=projected.shape[0] - 1)
    own = projected[slots]
    found = []
    for index, (size, left) in enumerate(BRANCHES):
        branch = slice(index * BRANCH_WIDTH, (index + 1) * BRANCH_WIDTH)
        total = bias[branch].unsqueeze(0)
        for place in range(size):
            start = GAP - left + place
            total = total + windows[index][padded[start : start + rows], place]
        hidden = torch.relu(total) + own[:, branch]
        found.append(torch.where(inside, hidden, 0.0).to(projected.dtype))
    return found


def _normalise(
    slots: torch.Tensor,
    inside: torch.Tensor,
    hidden: Sequence[torch.Tensor],
    convolved: Sequence[torch.Tensor],
    sums: torch.Tensor,
    squares: torch.Tensor,
    width: int,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows behind the second convolution, and each row's mean and 1 / deviation."""
    kind = sums.dtype
    output = torch.cat(
        [torch.relu(c.to(kind)) + h.to(kind) for c, h in zip(convolved, hidden, strict=True)], 1
    )
    output = torch.where(inside, output, 0.0)
    mean = (output.sum(1) + sums[slots]) / width
    power = (output * output).sum(1) + squares[slots]
    scale = torch.rsqrt((power / width - mean * mean).clamp_min(0.0) + epsilon)
    scale = torch.where(inside.squeeze(1), scale, 0.0)
    return output.to(hidden[0].dtype), mean, scale


def _normalise_backward(
    slots: torch.Tensor,
    text_of_row: torch.Tensor,
    gradient: torch.Tensor,
    totals: torch.Tensor,
    embedded: torch.Tensor,
    hidden: Sequence[torch.Tensor],
    convolved: Sequence[torch.Tensor],
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Return the gradients of the output and of the convolution, and each row's pull."""
    kind, low = gradient.dtype, hidden[0].dtype
    width, inner = gradient.shape[1], embedded.shape[1]
    own = gradient[text_of_row]
    total = totals[text_of_row]
    known = embedded[slots.clamp_max(embedded.shape[0] - 1)].to(kind)
    output = torch.cat(
        [torch.relu(c.to(kind)) + h.to(kind) for c, h in zip(convolved, hidden, strict=True)], 1
    )
    along = (own[:, :inner] * known).sum(1) + (own[:, inner:] * output).sum(1)
    pull = scale * scale * (scale * (along - mean * total) / width)
    shift = scale * (total / width) - pull * mean
    whole = own[:, inner:] * scale.unsqueeze(1) - shift.unsqueeze(1) - output * pull.unsqueeze(1)
    grad_output = [rows.to(low) for rows in torch.split(whole, BRANCH_WIDTH, 1)]
    grad_convolved = [
        torch.where(c > 0, rows, 0.0).to(low)
        for c, rows in zip(convolved, torch.split(whole, BRANCH_WIDTH, 1), strict=True)
    ]
    return grad_output, grad_convolved, pull


def _first_backward(
    slots: torch.Tensor,
    inside: torch.Tensor,
    reached: Sequence[torch.Tensor],
    grad_output: Sequence[torch.Tensor],
    hidden: Sequence[torch.Tensor],
    projected: torch.Tensor,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the gradients of the first convolution's rows and of its sums."""
    own = torch.split(projected[slots], BRANCH_WIDTH, 1)
    grad_hidden = [
        torch.where(inside, into + rows, 0.0).contiguous()
        for into, rows in zip(reached, grad_output, strict=True)
    ]
    grad_summed = [
        torch.where(h > before, rows, 0.0)
        for h, before, rows in zip(hidden, own, grad_hidden, strict=True)
    ]
    return grad_hidden, grad_summed


@dataclass(frozen=True, slots=True)
class _RowFunctions:
    first: Callable[..., Any] = _first
    normalise: Callable[..., Any] = _normalise
    normalise_backward: Callable[..., Any] = _normalise_backward
    first_backward: Callable[..., Any] = _first_backward


def _row_functions(slots: torch.Tensor, *, training: bool) -> _RowFunctions:
    # To compile takes half a minute, and a compiler for C: it pays where steps are large and many.
    large = slots.device.type == "cuda" and slots.shape[0] >= _COMPILED_ROWS
    if training and large and shutil.which("cc"):
        return compiled_row_functions()
    return _RowFunctions()


@functools.cache
def compiled_row_functions(backend: str = "inductor", *, whole: bool = False) -> _RowFunctions:
    """Return the functions compiled; with ``whole`` it is an error to fall back to running them."""

    def fused(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = torch.compile(
            function, dynamic=True, fullgraph=whole, backend=backend
        )
        return made

    return _RowFunctions(
        fused(_first), fused(_normalise), fused(_normalise_backward), fused(_first_backward)
    )
