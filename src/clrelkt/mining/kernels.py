"""Triton kernels: a screen whose scores never reach memory, one that reads them once, exact pairs.

What passes is written down as words of 32 columns: each row has a list of words, each with a mask
of the columns that passed, and a count that goes on where the list is full.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from clrelkt.mining.screening import Limits

__all__ = [
    "FUSED",
    "Blocks",
    "FusedScreen",
    "ListingScreen",
    "Lists",
    "TwoPassScreen",
    "exact_scores",
    "grid_whole",
    "round_rows",
]

# Places in a row's list; a row that needs more is screened again with as many as it needs.
_CAPACITY = 256
_UNPACKED = 2**27
_LISTED = 2**27


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the fused screen cuts its work.

    A program multiplies blocks of ``rows`` x ``columns`` scores in steps of ``depth``; ``group``
    blocks of rows share their candidates in the cache. ``per_processor`` persistent programs run
    on each multiprocessor, 0 starts one program a block. With ``tma`` the copies go through
    tensor descriptors. ``chained`` writes down what a block found while the next one is multiplied
    (``tma``, no ``flatten``).
    """

    rows: int = 128
    columns: int = 256
    depth: int = 64
    group: int = 8
    warps: int = 8
    stages: int = 4
    per_processor: int = 1
    tma: bool = True
    flatten: bool = True
    specialise: bool = False
    chained: bool = False


FUSED = Blocks(group=16, chained=True)


@triton.jit
def _inside(scores, low, high):
    """Return numbers that are negative where a score is outside its row's limits."""
    # Rounding must leave nothing out; a limit of infinity lets nothing through.
    half = tl.where(low > 2.0, -1.0, (high - low) * 0.5 + 4.76837158203125e-07)
    middle = tl.where(low > 2.0, 0.0, (high + low) * 0.5)
    return half[:, None, None] - tl.abs(scores - middle[:, None, None])


@triton.jit
def _passing(
    scores,
    row,
    first_column,
    hard_low,
    hard_high,
    semi_low,
    semi_high,
    row_key,
    hard_key,
    semi_key,
    column_key,
    rows,
    columns,
    capped: tl.constexpr,
    random: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Return which scores of a block, shape (block_rows, block_columns), pass their limits.

    A bit says so, in words of 32 columns: (block_rows, block_columns // 32), int32.
    """
    inside = row < rows
    scores = tl.reshape(scores, (block_rows, block_columns // 32, 32))
    hard_from = tl.load(hard_low + row, mask=inside, other=float("inf"))
    semi_from = tl.load(semi_low + row, mask=inside, other=float("inf"))
    semi_to = tl.load(semi_high + row, mask=inside, other=0.0)
    # A number's sign says whether a score passes: sums run at twice the rate of comparisons.
    if capped:
        hard_to = tl.load(hard_high + row, mask=inside, other=0.0)
        hard = _inside(scores, hard_from, hard_to)
    else:
        hard = scores - hard_from[:, None, None]
    semi = _inside(scores, semi_from, semi_to)
    hard_fails = hard.to(tl.int32, bitcast=True)
    semi_fails = semi.to(tl.int32, bitcast=True)
    if random:
        column = first_column + tl.arange(0, block_columns)
        right = tl.load(column_key + column, mask=column < columns, other=0)
        right = tl.reshape(right, (block_columns // 32, 32))
        key = tl.load(row_key + row, mask=inside, other=0)[:, None, None] ^ right[None, :, :]
        hard_last = tl.load(hard_key + row, mask=inside, other=0)[:, None, None]
        semi_last = tl.load(semi_key + row, mask=inside, other=0)[:, None, None]
        hard_fails = tl.where(key <= hard_last, hard_fails, -1)
        semi_fails = tl.where(key <= semi_last, semi_fails, -1)
    signs = (hard_fails & semi_fails & -2147483648).to(tl.uint32, bitcast=True)
    away = (31 - tl.arange(0, 32)).to(tl.uint32)[None, None, :]
    mask = ~tl.xor_sum(signs >> away, axis=2).to(tl.int32, bitcast=True)
    word = first_column // 32 + tl.arange(0, block_columns // 32)
    # The last word may go beyond the last column, where a block is filled with zeros.
    left = columns - word * 32
    valid = tl.where(left >= 32, -1, tl.where(left <= 0, 0, (1 << tl.maximum(left, 0)) - 1))
    mask = mask & valid[None, :]
    return tl.where(inside[:, None], mask, 0)


@triton.jit
def _write(mask, top, left, count, words, masks, capacity):
    """Write down what ``_passing`` found in a block, each word at the next place of its row."""
    rows: tl.constexpr = mask.shape[0]
    wide: tl.constexpr = mask.shape[1]
    row = top + tl.arange(0, rows)
    word = left // 32 + tl.arange(0, wide)
    found = mask != 0
    place = tl.atomic_add(
        count + tl.broadcast_to(row[:, None], mask.shape), 1, mask=found, sem="relaxed"
    )
    at = row[:, None].to(tl.int64) * capacity + place
    fits = found & (place < capacity)
    tl.store(words + at, tl.broadcast_to(word[None, :], mask.shape), mask=fits)
    tl.store(masks + at, mask, mask=fits)


# Rows that are screened again come in any number; each kind of number would be compiled anew.
@triton.jit(do_not_specialize=["rows", "columns", "capacity", "programs"])
def _fused_kernel(
    questions,
    candidates,
    hard_low,
    hard_high,
    semi_low,
    semi_high,
    row_key,
    hard_key,
    semi_key,
    column_key,
    count,
    words,
    masks,
    rows,
    columns,
    capacity,
    programs,
    dimension: tl.constexpr,
    capped: tl.constexpr,
    random: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    group: tl.constexpr,
    tma: tl.constexpr,
    flatten: tl.constexpr,
    specialise: tl.constexpr,
):
    """Multiply blocks and write down what passes."""
    high = tl.cdiv(rows, block_rows)
    wide = tl.cdiv(columns, block_columns)
    for block in tl.range(
        tl.program_id(0), high * wide, programs, flatten=flatten, warp_specialize=specialise
    ):
        band = block // (group * wide)
        tall = tl.minimum(high - band * group, group)
        within = block % (group * wide)
        top = (band * group + within % tall) * block_rows
        left = (within // tall) * block_columns
        row = top + tl.arange(0, block_rows)
        scores = tl.zeros((block_rows, block_columns), dtype=tl.float32)
        for step in range(0, dimension // block_depth):
            if tma:
                ours = questions.load([top, step * block_depth])
                theirs = candidates.load([left, step * block_depth])
            else:
                depth = step * block_depth + tl.arange(0, block_depth)
                column = left + tl.arange(0, block_columns)
                ours = tl.load(
                    questions + row[:, None].to(tl.int64) * dimension + depth[None, :],
                    mask=(row < rows)[:, None],
                    other=0.0,
                )
                theirs = tl.load(
                    candidates + column[:, None].to(tl.int64) * dimension + depth[None, :],
                    mask=(column < columns)[:, None],
                    other=0.0,
                )
            scores = tl.dot(ours, theirs.T, scores)
        mask = _passing(
            scores,
            row,
            left,
            hard_low,
            hard_high,
            semi_low,
            semi_high,
            row_key,
            hard_key,
            semi_key,
            column_key,
            rows,
            columns,
            capped,
            random,
            block_rows,
            block_columns,
        )
        _write(mask, top, left, count, words, masks, capacity)


# As above, in one loop over the steps of all blocks: what a block found is written down while the
# next one is multiplied, so that nothing waits for the counts.
@triton.jit(do_not_specialize=["rows", "columns", "capacity", "programs"])
def _chained_kernel(
    questions,
    candidates,
    hard_low,
    hard_high,
    semi_low,
    semi_high,
    row_key,
    hard_key,
    semi_key,
    column_key,
    count,
    words,
    masks,
    rows,
    columns,
    capacity,
    programs,
    dimension: tl.constexpr,
    capped: tl.constexpr,
    random: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    group: tl.constexpr,
):
    """Multiply blocks and write down what passes."""
    steps: tl.constexpr = dimension // block_depth
    second: tl.constexpr = 1 if steps > 1 else 0
    high = tl.cdiv(rows, block_rows)
    wide = tl.cdiv(columns, block_columns)
    own = tl.cdiv(high * wide - tl.program_id(0), programs)
    block = tl.program_id(0) - programs
    step = -1
    top = 0
    left = 0
    last_top = 0
    last_left = 0
    mask = tl.zeros((block_rows, block_columns // 32), dtype=tl.int32)
    scores = tl.zeros((block_rows, block_columns), dtype=tl.float32)
    for _ in tl.range(0, own * steps):
        step = tl.where(step == steps - 1, 0, step + 1)
        if step == 0:
            block += programs
            band = block // (group * wide)
            tall = tl.minimum(high - band * group, group)
            within = block % (group * wide)
            top = (band * group + within % tall) * block_rows
            left = (within // tall) * block_columns
        ours = questions.load([top, step * block_depth])
        theirs = candidates.load([left, step * block_depth])
        scores = tl.dot(ours, theirs.T, scores)
        if step == second:
            _write(mask, last_top, last_left, count, words, masks, capacity)
        if step == steps - 1:
            mask = _passing(
                scores,
                top + tl.arange(0, block_rows),
                left,
                hard_low,
                hard_high,
                semi_low,
                semi_high,
                row_key,
                hard_key,
                semi_key,
                column_key,
                rows,
                columns,
                capped,
                random,
                block_rows,
                block_columns,
            )
            last_top = top
            last_left = left
            scores = tl.zeros((block_rows, block_columns), dtype=tl.float32)
    _write(mask, last_top, last_left, count, words, masks, capacity)


@triton.jit
def _read_kernel(
    scores,
    hard_low,
    hard_high,
    semi_low,
    semi_high,
    row_key,
    hard_key,
    semi_key,
    column_key,
    count,
    words,
    masks,
    first_row,
    first_column,
    rows,
    columns,
    width,
    capacity,
    capped: tl.constexpr,
    random: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Read a table of scores once, of rows from first_row and columns from first_column on."""
    line = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    left = tl.program_id(1) * block_columns
    column = left + tl.arange(0, block_columns)
    row = first_row + line
    block = tl.load(
        scores + line[:, None].to(tl.int64) * width + column[None, :],
        mask=(row < rows)[:, None] & (column < width)[None, :],
        other=0.0,
    ).to(tl.float32)
    mask = _passing(
        block,
        row,
        first_column + left,
        hard_low,
        hard_high,
        semi_low,
        semi_high,
        row_key,
        hard_key,
        semi_key,
        column_key,
        rows,
        columns,
        capped,
        random,
        block_rows,
        block_columns,
    )
    top = first_row + tl.program_id(0) * block_rows
    _write(mask, top, first_column + left, count, words, masks, capacity)


@triton.jit
def grid_whole(numbers):
    """Return float32 numbers as multiples of 2**-24, rounded to whole ones, float64."""
    # Adding and taking away 1.5 * 2**52 rounds to a whole number, halves to even ones.
    return (numbers.to(tl.float64) * 16777216.0 + 6755399441055744.0) - 6755399441055744.0


@triton.jit
def _exact_kernel(
    questions,
    candidates,
    row,
    column,
    scores,
    pairs,
    dimension,
    block_pairs: tl.constexpr,
    block_dimension: tl.constexpr,
):
    """Multiply pairs of vectors on the grid of 2**-24, exactly."""
    pair = tl.program_id(0).to(tl.int64) * block_pairs + tl.arange(0, block_pairs)
    inside = pair < pairs
    left = tl.load(row + pair, mask=inside, other=0)
    right = tl.load(column + pair, mask=inside, other=0)
    depth = tl.arange(0, block_dimension)
    both = inside[:, None] & (depth < dimension)[None, :]
    ours = tl.load(questions + left[:, None] * dimension + depth[None, :], mask=both, other=0.0)
    theirs = tl.load(candidates + right[:, None] * dimension + depth[None, :], mask=both, other=0.0)
    total = tl.sum(grid_whole(ours) * grid_whole(theirs), axis=1) * 3.552713678800501e-15
    tl.store(scores + pair, total, mask=inside)


def exact_scores(
    questions: torch.Tensor, candidates: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> torch.Tensor:
    """Return the dot products of pairs of rows, rounded to the grid, shape (pairs,), float64.

    ``questions`` and ``candidates`` are float32, shape (rows, dimension); ``row`` and ``column``
    (pairs,) int64. The result is what ``on_grid`` and any order of summing give.
    """
    scores = torch.empty(len(row), dtype=torch.float64, device=row.device)
    dimension = questions.shape[1]
    pairs = 4
    if len(row):
        _exact_kernel[(triton.cdiv(len(row), pairs),)](
            questions.contiguous(),
            candidates.contiguous(),
            row.contiguous(),
            column.contiguous(),
            scores,
            len(row),
            dimension,
            block_pairs=pairs,
            block_dimension=triton.next_power_of_2(dimension),
            num_warps=4,
        )
    return scores


@triton.jit
def _round_kernel(
    vectors,
    order,
    low,
    error,
    norm,
    dimension: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    ordered: tl.constexpr,
):
    """Round a row to the grid and then to the type of ``low``; square what that leaves out."""
    row = tl.program_id(0).to(tl.int64)
    source = row
    if ordered:
        source = tl.load(order + row)
    depth = tl.arange(0, block)
    given = tl.load(vectors + source * dimension + depth, mask=depth < dimension, other=0.0)
    exact = grid_whole(given) * 5.960464477539063e-08
    # Single precision holds the grid's numbers, so that they are rounded only once.
    near = exact.to(tl.float32).to(low.dtype.element_ty)
    tl.store(low + row * width + depth, near, mask=depth < width)
    near = near.to(tl.float64)
    tl.store(error + row, tl.sum((exact - near) * (exact - near), axis=0))
    tl.store(norm + row, tl.sum(near * near, axis=0))


def round_rows(
    vectors: torch.Tensor, order: torch.Tensor | None, low: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write rows into ``low`` as ``low_precision`` rounds them; return their errors and lengths.

    ``vectors`` is float32, shape (rows, dimension); ``order`` (rows,) int64 says which of them
    each row of ``low`` is. Both results have shape (rows,), float64, rounded to nearest.
    """
    squares = torch.empty((2, len(low)), dtype=torch.float64, device=low.device)
    if len(low):
        _round_kernel[(len(low),)](
            vectors.contiguous(),
            low if order is None else order.contiguous(),
            low,
            *squares,
            dimension=vectors.shape[1],
            width=low.shape[1],
            block=triton.next_power_of_2(low.shape[1]),
            ordered=order is not None,
            num_warps=4,
        )
    error, norm = squares.sqrt_()
    return error, norm


@dataclass(frozen=True, slots=True)
class Lists:
    """What passed, by row: ``count`` (rows,), ``words`` and ``masks`` (rows, capacity), int32."""

    count: torch.Tensor
    words: torch.Tensor
    masks: torch.Tensor

    @classmethod
    def empty(cls, rows: int, capacity: int, device: torch.device) -> "Lists":
        """Return lists that hold nothing."""
        tables = (torch.empty((rows, capacity), dtype=torch.int32, device=device) for _ in range(2))
        return cls(torch.zeros(rows, dtype=torch.int32, device=device), *tables)

    @property
    def capacity(self) -> int:
        """How many words a list may hold."""
        return self.words.shape[1]

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield rows and columns of what passed in the rows whose lists hold all of it."""
        complete = torch.where(self.count <= self.capacity, self.count, 0)
        bits = torch.arange(32, device=self.count.device)
        places = torch.arange(self.capacity, device=self.count.device)
        height = max(1, _UNPACKED // (32 * self.capacity))
        for top in range(0, len(complete), height):
            used = places < complete[top : top + height].unsqueeze(1)
            row, place = torch.nonzero(used, as_tuple=True)
            row += top
            mask = self.masks[row, place].unsqueeze(1) >> bits.to(torch.int32)
            entry, bit = torch.nonzero(mask & 1, as_tuple=True)
            yield row[entry], self.words[row, place].to(torch.int64)[entry] * 32 + bit


class ListingScreen:
    """What both screens share: lists of words, and a second run for rows whose list is full."""

    def __call__(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the rows and columns of the pairs that may pass."""
        for lines, lists in self.lists(questions, candidates, limits, column_key):
            for row, column in lists.pairs():
                yield row if lines is None else lines[row], column

    def lists(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
    ) -> Iterator[tuple[torch.Tensor | None, Lists]]:
        """Yield lists of the pairs that may pass, and which rows they are of, None for all.

        Lists whose count is beyond their capacity are to be left alone: they come again, longer.
        """
        if not len(questions) or not len(candidates):
            return
        lists = self._listed(questions, candidates, limits, column_key, _CAPACITY)
        some_full = _later((lists.count > lists.capacity).any())
        yield None, lists
        if not some_full():
            return
        full = torch.nonzero(lists.count > lists.capacity)[:, 0]
        while len(full):
            counts = lists.count[full]
            # Those that need about as many at a time, so that few rows have long lists.
            need = int(counts.min()) * 2
            some = full[counts <= need][: max(1, _LISTED // need)]
            full = full[~torch.isin(full, some)]
            yield some, self._listed(questions[some], candidates, limits[some], column_key, need)

    def _listed(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
        capacity: int,
    ) -> Lists:
        lists = Lists.empty(len(questions), capacity, questions.device)
        self.run(questions, candidates, limits, column_key, lists)
        return lists

    def run(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
        lists: Lists,
    ) -> None:
        """Add to ``lists`` what passes."""
        raise NotImplementedError


class FusedScreen(ListingScreen):
    """Multiplies and compares in one kernel: scores live and die in registers."""

    def __init__(self, blocks: Blocks = FUSED) -> None:
        self.blocks = blocks

    def run(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
        lists: Lists,
    ) -> None:
        """Add to ``lists`` what passes."""
        blocks = self.blocks
        tall, wide = len(questions), len(candidates)
        total = triton.cdiv(tall, blocks.rows) * triton.cdiv(wide, blocks.columns)
        programs = total
        if blocks.per_processor:
            programs = min(total, blocks.per_processor * _processors(questions.device))
        sides: tuple[Any, Any] = (questions.contiguous(), candidates.contiguous())
        if blocks.tma:
            sides = (
                TensorDescriptor.from_tensor(sides[0], [blocks.rows, blocks.depth]),
                TensorDescriptor.from_tensor(sides[1], [blocks.columns, blocks.depth]),
            )
        given = (
            *sides,
            *_pointers(limits, column_key),
            lists.count,
            lists.words,
            lists.masks,
            tall,
            wide,
            lists.capacity,
            programs,
        )
        constants: dict[str, Any] = {
            "dimension": questions.shape[1],
            "capped": limits.hard_high is not None,
            "random": column_key is not None,
            "block_rows": blocks.rows,
            "block_columns": blocks.columns,
            "block_depth": blocks.depth,
            "group": blocks.group,
            "num_warps": blocks.warps,
            "num_stages": blocks.stages,
        }
        # Random keys need more registers than a chained kernel has left.
        if blocks.chained and column_key is None:
            _chained_kernel[(programs,)](*given, **constants)
            return
        _fused_kernel[(programs,)](
            *given,
            **constants,
            tma=blocks.tma,
            flatten=blocks.flatten,
            specialise=blocks.specialise,
        )


class TwoPassScreen(ListingScreen):
    """The device's own matrix product into a block of ``height`` x ``width``, read once.

    ``width`` is a multiple of 32.
    """

    def __init__(self, height: int = 8_192, width: int = 16_384) -> None:
        self.height, self.width = height, width

    def run(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        limits: Limits,
        column_key: torch.Tensor | None,
        lists: Lists,
    ) -> None:
        """Add to ``lists`` what passes."""
        limits = limits.widened() if questions.dtype == torch.float16 else limits
        height, width = min(self.height, len(questions)), min(self.width, len(candidates))
        scores = questions.new_empty(height * width)
        pointers = _pointers(limits, column_key)
        tile = (32, 256)
        for left in range(0, len(candidates), width):
            others = candidates[left : left + width]
            for top in range(0, len(questions), height):
                ours = questions[top : top + height]
                table = scores[: len(ours) * len(others)].view(len(ours), len(others))
                torch.mm(ours, others.T, out=table)
                grid = (triton.cdiv(len(ours), tile[0]), triton.cdiv(len(others), tile[1]))
                _read_kernel[grid](
                    table,
                    *pointers,
                    lists.count,
                    lists.words,
                    lists.masks,
                    top,
                    left,
                    min(len(questions), top + height),
                    left + len(others),
                    len(others),
                    lists.capacity,
                    capped=limits.hard_high is not None,
                    random=column_key is not None,
                    block_rows=tile[0],
                    block_columns=tile[1],
                    num_warps=4,
                )


def _pointers(limits: Limits, column_key: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Return the kernels' tensors; where one is not used any other stands for it."""
    spare = limits.hard_low
    tensors = (
        limits.hard_low,
        limits.hard_high,
        limits.semi_low,
        limits.semi_high,
        limits.row_key,
        limits.hard_key,
        limits.semi_key,
        column_key,
    )
    return tuple(spare if tensor is None else tensor.contiguous() for tensor in tensors)


def _later(answer: torch.Tensor) -> Callable[[], bool]:
    """Return how to look at an answer that waits for it alone, not for what is asked after it."""
    if answer.device.type != "cuda":
        return lambda: bool(answer)
    seen = torch.empty((), dtype=torch.bool, pin_memory=True)
    seen.copy_(answer, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(answer.device))

    def look() -> bool:
        there.synchronize()
        return bool(seen)

    return look


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
