"""mUSE's forward and backward pass over flat rows of tokens.

Three facts about the network make it cheap without changing what it computes:

- The input projection, its LayerNorm and the matrix products of the first convolution see one
  token at a time, so they are done once for each *distinct* token; the convolution is then a sum
  of looked-up rows.
- The last linear layer and the LayerNorm's gain and bias commute with the sum over a text's
  tokens, so they are done once a text.
- The texts lie one behind the other with ``GAP`` rows of zeros between them. A convolution window
  never reaches further than that, so a shifted slice of the row is its own zero padding.

On a CPU the tokens are worked through in blocks that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from clrelkt.encoders.products import add_product, onednn_is_faster
from clrelkt.encoders.ragged import RaggedBatch, token_budget_slices
from clrelkt.encoders.row_groups import RowGroups

__all__ = ["BRANCHES", "BRANCH_WIDTH", "CPU_BLOCK_TOKENS", "GAP", "TokenLayout", "pool_tokens"]

BRANCHES = ((2, 0), (3, 1), (5, 2))
"""Window size and left context of each convolution branch."""
BRANCH_WIDTH = 256
CPU_BLOCK_TOKENS = 2048
"""Tokens that are worked through at a time on a CPU; more would not stay in the cache."""
_ROUND = 64
"""oneDNN prepares itself for every number of rows: those of a block are rounded up to this."""
GAP = 2
"""Rows of zeros before the first text and behind each."""


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """Where each token of a batch stands in the gapped row.

    A row is one place of the gapped layout: ``GAP`` rows before the first text, then each text's
    tokens followed by ``GAP`` rows. ``distinct`` (distinct,) holds the token ids that occur,
    ``slot_of_row`` (rows,) the index into them, or ``len(distinct)`` for a gap row. ``first_row``
    and ``lengths`` (texts,) say where a text begins and how long it is. ``by_slot`` groups the
    token rows by slot, ``by_text`` by text where all texts are worked through at once. ``blocks``
    are the runs of texts that are worked through together.
    """

    distinct: torch.Tensor
    slot_of_row: torch.Tensor
    first_row: torch.Tensor
    lengths: torch.Tensor
    token_rows: torch.Tensor
    by_slot: RowGroups
    by_text: RowGroups | None
    blocks: tuple[slice, ...]

    @classmethod
    def of(cls, batch: RaggedBatch, block_tokens: int = CPU_BLOCK_TOKENS) -> TokenLayout:
        """Lay out a batch; on a CPU in blocks of about ``block_tokens`` tokens, else in one."""
        device = batch.token_ids.device
        lengths = batch.lengths
        distinct, slots, counts = torch.unique(
            batch.token_ids, return_inverse=True, return_counts=True
        )
        token_rows = torch.arange(batch.tokens, device=device) + (batch.text_of_token + 1) * GAP
        rows = batch.tokens + (len(batch) + 1) * GAP
        slot_of_row = torch.full((rows,), distinct.shape[0], device=device)
        slot_of_row[token_rows] = slots
        texts = torch.arange(len(batch), device=device)
        grouped = token_rows[torch.argsort(slots, stable=True)]
        on_cpu = device.type == "cpu"
        return cls(
            distinct=distinct,
            slot_of_row=slot_of_row,
            first_row=lengths.cumsum(0) - lengths + (texts + 1) * GAP,
            lengths=lengths,
            token_rows=token_rows,
            by_slot=(RowGroups.undivided if on_cpu else RowGroups.of)(grouped, counts),
            by_text=None if on_cpu else RowGroups.of(token_rows, lengths),
            blocks=_blocks(lengths, block_tokens),
        )

    @property
    def rows(self) -> int:
        """Number of rows, gaps included."""
        return self.slot_of_row.numel()


def _blocks(lengths: torch.Tensor, block_tokens: int) -> tuple[slice, ...]:
    if lengths.device.type != "cpu":
        return (slice(0, lengths.shape[0]),)
    return tuple(token_budget_slices(lengths.tolist(), block_tokens))


@dataclass(frozen=True, slots=True)
class _Block:
    """A run of texts. Its rows include the gaps before and behind it."""

    texts: slice
    rows: slice
    gap_rows: torch.Tensor
    offsets: torch.Tensor

    @property
    def size(self) -> int:
        size: int = self.rows.stop - self.rows.start
        return size


def _cut(layout: TokenLayout) -> Iterator[_Block]:
    for texts in layout.blocks:
        first = layout.first_row[texts]
        lengths = layout.lengths[texts]
        if len(layout.blocks) == 1:
            start, stop = 0, layout.rows
        else:
            start = int(first[0]) - GAP
            stop = int(first[-1] + lengths[-1]) + GAP
        behind = first + lengths - start
        gap_rows = torch.cat([behind, behind + 1])
        edge = torch.arange(GAP, device=first.device)
        yield _Block(texts, slice(start, stop), torch.cat([edge, gap_rows]), first - start)


def pool_tokens(
    layout: TokenLayout,
    embedded: torch.Tensor,
    projected: torch.Tensor,
    windows: tuple[torch.Tensor, ...],
    bias_1: torch.Tensor,
    kernels_2: tuple[torch.Tensor, ...],
    bias_2: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Run the convolutions, normalise each token, and sum the tokens of each text.

    Args:
        layout: where the tokens stand.
        embedded: embedding of each distinct token, shape (distinct, 512).
        projected: projected embedding of each distinct token, and a row of zeros for the gaps,
            shape (distinct + 1, 768): the three branches side by side.
        windows: for each branch of window n the product of ``projected`` with the n slices of the
            first convolution's kernel, shape ((distinct + 1) * n, 256).
        bias_1: bias of the first convolutions, shape (768,).
        kernels_2: second convolutions' kernels, shape (n, 256, 256) each; of another type than the
            rest only where no gradient is wanted.
        bias_2: bias of the second convolutions, shape (768,).
        epsilon: LayerNorm's epsilon.

    Returns:
        Sum over a text's tokens of the normalised (not yet scaled and shifted) concatenation of
        embedding and branches, shape (texts, 1280).
    """
    pooled: torch.Tensor = _PoolTokens.apply(
        layout, epsilon, embedded, projected, bias_1, bias_2, *windows, *kernels_2
    )  # type: ignore[no-untyped-call]
    return pooled


class _PoolTokens(torch.autograd.Function):
    """Forward and backward of ``pool_tokens``, written out so that no token-sized tensor is copied.

    Scattering gradients to tokens is done as gathering by token (an embedding bag over the rows
    grouped by token), which is deterministic on every device.
    """

    @staticmethod
    def forward(
        ctx: Any, layout: TokenLayout, epsilon: float, *tensors: torch.Tensor
    ) -> torch.Tensor:
        embedded, projected, bias_1, bias_2, *rest = tensors
        windows, kernels_2 = rest[: len(BRANCHES)], rest[len(BRANCHES) :]
        needs_grad = any(ctx.needs_input_grad)
        width = embedded.shape[1] + projected.shape[1]
        embedded_sum = functional.pad(embedded.sum(1), (0, 1))
        embedded_squares = functional.pad(torch.linalg.vecdot(embedded, embedded), (0, 1))
        pooled = embedded.new_empty(layout.lengths.shape[0], width)
        hidden: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        moments: list[tuple[torch.Tensor, torch.Tensor]] = []
        for block in _cut(layout):
            slots = layout.slot_of_row[block.rows]
            first = _first_convolutions(layout, block, slots, windows, projected, bias_1)
            output = _second_convolutions(first, kernels_2, bias_2)
            output.index_fill_(0, block.gap_rows, 0.0)
            mean = (output.sum(1) + embedded_sum[slots]) / width
            squares = torch.linalg.vecdot(output, output) + embedded_squares[slots]
            scale = torch.rsqrt((squares / width - mean * mean).clamp_min_(0.0) + epsilon)
            scale.index_fill_(0, block.gap_rows, 0.0)
            if layout.by_text is None:
                _pool_block(pooled[block.texts], block, slots, embedded, output, mean, scale)
            else:
                pooled = _pool_all(layout.by_text, slots, embedded, output, mean, scale)
            if needs_grad:
                hidden.append(first)
                outputs.append(output)
                moments.append((mean, scale))
        if needs_grad:
            ctx.layout, ctx.hidden, ctx.outputs, ctx.moments = layout, hidden, outputs, moments
            ctx.save_for_backward(embedded, projected, *kernels_2)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        layout: TokenLayout = ctx.layout
        embedded, projected, *kernels_2 = ctx.saved_tensors
        inner = projected.shape[1]
        grad_hidden = embedded.new_zeros(layout.rows, inner)
        grad_summed = embedded.new_zeros(layout.rows, inner)
        weight = embedded.new_zeros(layout.rows)
        pull = embedded.new_zeros(layout.rows)
        pull_mean = embedded.new_zeros(layout.rows)
        # Where the kernels are frozen their gradients are a third of the work, and not needed.
        wanted = ctx.needs_input_grad[-len(kernels_2) :]
        grad_kernels = [
            torch.zeros_like(kernel) if needed else None
            for kernel, needed in zip(kernels_2, wanted, strict=True)
        ]
        grad_bias_2 = embedded.new_zeros(inner)
        for index, block in enumerate(_cut(layout)):
            hidden, output = ctx.hidden[index], ctx.outputs[index]
            mean, scale = ctx.moments[index]
            ctx.hidden[index] = ctx.outputs[index] = None
            slots = layout.slot_of_row[block.rows]
            grad_output, row_pull = _normalise_backward(
                gradient, block, layout, slots, embedded, output, mean, scale
            )
            weight[block.rows] = scale
            pull[block.rows] = row_pull
            pull_mean[block.rows] = row_pull * mean
            # The output is relu(convolution) + hidden: it exceeds hidden where the relu passed.
            grad_convolution = grad_output * (output > hidden)
            grad_bias_2 += grad_convolution.sum(0)
            _second_convolutions_backward(
                grad_output, grad_convolution, hidden, kernels_2, grad_kernels
            )
            grad_output.index_fill_(0, block.gap_rows, 0.0)
            grad_hidden[block.rows] = grad_output
            _mask_first_relu(grad_output, hidden, projected, slots)
            grad_summed[block.rows] = grad_output
        grad_embedded = _embedding_backward(layout, gradient, embedded, weight, pull, pull_mean)
        grad_projected = _gather_by_slot(layout, grad_hidden, 0)
        grad_windows = _windows_backward(layout, grad_summed)
        return (
            None,
            None,
            grad_embedded,
            functional.pad(grad_projected, (0, 0, 0, 1)),
            grad_summed.sum(0),
            grad_bias_2,
            *grad_windows,
            *grad_kernels,
        )


def _branch(index: int) -> slice:
    return slice(index * BRANCH_WIDTH, (index + 1) * BRANCH_WIDTH)


def _first_convolutions(
    layout: TokenLayout,
    block: _Block,
    slots: torch.Tensor,
    windows: list[torch.Tensor],
    projected: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    gap_slot = layout.distinct.shape[0]
    padded = functional.pad(slots, (GAP, GAP), value=gap_slot)
    hidden = projected.new_empty(block.size, projected.shape[1])
    for index, (size, left) in enumerate(BRANCHES):
        shifted = padded.unfold(0, size, 1)[GAP - left : GAP - left + block.size]
        rows = shifted * size + torch.arange(size, device=slots.device)
        summed = functional.embedding_bag(rows, windows[index], mode="sum")
        hidden[:, _branch(index)] = summed.add_(bias[_branch(index)]).relu_()
    hidden += functional.embedding(slots, projected)
    return hidden.index_fill_(0, block.gap_rows, 0.0)


def _shifted(tensor: torch.Tensor, offset: int) -> tuple[torch.Tensor, slice]:
    """Return the rows that a window slot at ``offset`` reads, and the rows that read them."""
    rows = tensor.shape[0]
    reads = tensor[max(offset, 0) : rows + min(offset, 0)]
    return reads, slice(max(-offset, 0), rows - max(offset, 0))


def _behind_zeros(rows: torch.Tensor, before: int, size: int) -> torch.Tensor:
    """Return ``rows`` (rows, 256) behind ``before`` rows of zeros, with zeros behind them.

    A window of ``size`` rows fits at as many places as there are rows, rounded up.
    """
    count = rows.shape[0]
    found = rows.new_empty(_rounded(count) + size - 1, rows.shape[1])
    found[:before] = 0.0
    found[before : before + count] = rows
    found[before + count :] = 0.0
    return found


def _rounded(rows: int) -> int:
    return -(-rows // _ROUND) * _ROUND


def _convolve(
    padded: torch.Tensor, factors: list[torch.Tensor], total: torch.Tensor
) -> torch.Tensor:
    """Return ``total`` and the products of a window's places with ``factors`` (output, 256)."""
    for place, factor in enumerate(factors):
        total = add_product(total, padded[place : place + total.shape[0]], factor)
    return total


def _second_convolutions_by_onednn(
    hidden: torch.Tensor, kernels: list[torch.Tensor], bias: torch.Tensor
) -> torch.Tensor:
    rows = hidden.shape[0]
    output = torch.empty_like(hidden)
    for index, (size, left) in enumerate(BRANCHES):
        padded = _behind_zeros(hidden[:, _branch(index)], left, size)
        total = bias[_branch(index)].expand(_rounded(rows), -1)
        factors = [kernel.T for kernel in kernels[index]]
        output[:, _branch(index)] = _convolve(padded, factors, total.contiguous())[:rows]
    return output.relu_().add_(hidden)


def _second_convolutions(
    hidden: torch.Tensor, kernels: list[torch.Tensor], bias: torch.Tensor
) -> torch.Tensor:
    if onednn_is_faster(hidden, *kernels):
        return _second_convolutions_by_onednn(hidden, kernels, bias)
    output = bias.expand(hidden.shape[0], -1).contiguous()
    # Kernels of less precision make the products in it; sums stay in that of ``hidden``.
    factors = hidden.to(kernels[0].dtype)
    for index, (size, left) in enumerate(BRANCHES):
        target, source = output[:, _branch(index)], factors[:, _branch(index)]
        for slot in range(size):
            reads, readers = _shifted(source, slot - left)
            if factors.dtype == output.dtype:
                target[readers].addmm_(reads, kernels[index][slot])
            else:
                target[readers].add_(reads @ kernels[index][slot])
    return output.relu_().add_(hidden)


def _second_convolutions_backward_by_onednn(
    grad_hidden: torch.Tensor,
    grad_convolution: torch.Tensor,
    hidden: torch.Tensor,
    kernels: list[torch.Tensor],
    grad_kernels: list[torch.Tensor | None],
) -> None:
    rows = hidden.shape[0]
    for index, (size, left) in enumerate(BRANCHES):
        # Backwards the window stands the other way round.
        behind = size - 1 - left
        gradient = _behind_zeros(grad_convolution[:, _branch(index)], behind, size)
        total = hidden.new_zeros(_rounded(rows), BRANCH_WIDTH)
        found = _convolve(gradient, list(kernels[index].flip(0)), total)
        grad_hidden[:, _branch(index)] += found[:rows]
        grad_kernel = grad_kernels[index]
        if grad_kernel is None:
            continue
        padded = _behind_zeros(hidden[:, _branch(index)], left, size)
        own = gradient[behind : behind + len(total)].T
        for place in range(size):
            reads = padded[place : place + len(total)].T
            grad_kernel[place] = add_product(grad_kernel[place], reads, own)


def _second_convolutions_backward(
    grad_hidden: torch.Tensor,
    grad_convolution: torch.Tensor,
    hidden: torch.Tensor,
    kernels: list[torch.Tensor],
    grad_kernels: list[torch.Tensor | None],
) -> None:
    if onednn_is_faster(hidden, *kernels):
        _second_convolutions_backward_by_onednn(
            grad_hidden, grad_convolution, hidden, kernels, grad_kernels
        )
        return
    for index, (size, left) in enumerate(BRANCHES):
        grad_kernel = grad_kernels[index]
        target, source = grad_hidden[:, _branch(index)], hidden[:, _branch(index)]
        gradient = grad_convolution[:, _branch(index)]
        for slot in range(size):
            reads, readers = _shifted(source, slot - left)
            read_target, _ = _shifted(target, slot - left)
            read_target.addmm_(gradient[readers], kernels[index][slot].T)
            if grad_kernel is not None:
                grad_kernel[slot].addmm_(reads.T, gradient[readers])


def _mask_first_relu(
    gradient: torch.Tensor, hidden: torch.Tensor, projected: torch.Tensor, slots: torch.Tensor
) -> None:
    # hidden is relu(sum) + projected: the relu passed where hidden exceeds projected.
    gradient.mul_(hidden > functional.embedding(slots, projected))


def _pool_block(
    pooled: torch.Tensor,
    block: _Block,
    slots: torch.Tensor,
    embedded: torch.Tensor,
    output: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> None:
    # Rows before the first text belong to no bag; gap rows behind a text weigh nothing.
    first = GAP
    weights = scale[first:]
    offsets = block.offsets - first
    inner = embedded.shape[1]
    rows = torch.arange(first, block.size, device=slots.device)
    safe = torch.where(slots == embedded.shape[0], 0, slots)[first:]

    def weighted_sum(chosen: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(
            chosen, table, offsets, mode="sum", per_sample_weights=weights
        )

    pooled[:, :inner] = weighted_sum(safe, embedded)
    pooled[:, inner:] = weighted_sum(rows, output)
    pooled -= weighted_sum(rows, mean.unsqueeze(1))


def _pool_all(
    by_text: RowGroups,
    slots: torch.Tensor,
    embedded: torch.Tensor,
    output: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    weights = scale[by_text.members]
    parts = (
        by_text.sum(embedded, slots[by_text.members], weights),
        by_text.sum(output, None, weights),
    )
    return torch.cat(parts, 1) - by_text.sum(mean.unsqueeze(1), None, weights)


def _normalise_backward(
    gradient: torch.Tensor,
    block: _Block,
    layout: TokenLayout,
    slots: torch.Tensor,
    embedded: torch.Tensor,
    output: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return d(loss)/d(output), shape (rows, 768), and each row's pull towards its mean.

    With x̂ = (x - mean) * scale and the gradient g of a text's sum, dx = scale * (g - mean(g)
    - x̂ * mean(g * x̂)); the pull is scale² * mean(g * x̂).
    """
    width = gradient.shape[1]
    inner = embedded.shape[1]
    local = gradient[block.texts]
    row_text = torch.repeat_interleave(
        torch.arange(local.shape[0], device=slots.device),
        layout.lengths[block.texts] + GAP,
        output_size=block.size - GAP,
    )
    row_text = functional.pad(row_text, (GAP, 0))
    safe = torch.where(slots == embedded.shape[0], 0, slots)
    total = local.sum(1)[row_text]
    along = torch.linalg.vecdot(local[:, :inner][row_text], embedded[safe])
    grad_output = local[:, inner:][row_text]
    along += torch.linalg.vecdot(grad_output, output)
    agreement = scale * (along - mean * total) / width
    pull = scale * scale * agreement
    shift = scale * (total / width) - pull * mean
    grad_output.mul_(scale.unsqueeze(1)).sub_(shift.unsqueeze(1))
    grad_output.addcmul_(output, pull.unsqueeze(1), value=-1)
    return grad_output, pull


def _embedding_backward(
    layout: TokenLayout,
    gradient: torch.Tensor,
    embedded: torch.Tensor,
    weight: torch.Tensor,
    pull: torch.Tensor,
    pull_mean: torch.Tensor,
) -> torch.Tensor:
    rows = layout.by_slot.members
    text_of_row = torch.repeat_interleave(
        torch.arange(layout.lengths.shape[0], device=rows.device),
        layout.lengths + GAP,
        output_size=layout.rows - GAP,
    )
    inner = embedded.shape[1]
    centred = gradient[:, :inner] - gradient.mean(1, keepdim=True)
    spread = layout.by_slot.sum(centred, text_of_row[rows - GAP], weight[rows])
    summed = layout.by_slot.sum(torch.stack([pull, pull_mean], 1))
    return spread.addcmul_(embedded, summed[:, :1], value=-1).add_(summed[:, 1:])


def _gather_by_slot(layout: TokenLayout, rows_gradient: torch.Tensor, offset: int) -> torch.Tensor:
    return layout.by_slot.sum(rows_gradient, layout.by_slot.members - offset)


def _windows_backward(layout: TokenLayout, grad_summed: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for index, (size, left) in enumerate(BRANCHES):
        gradient = grad_summed[:, _branch(index)].contiguous()
        slots = [_gather_by_slot(layout, gradient, slot - left) for slot in range(size)]
        stacked = torch.stack(slots, 1)
        found.append(functional.pad(stacked.flatten(0, 1), (0, 0, 0, size)))
    return found
