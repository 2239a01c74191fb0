"""Triton kernels that compare exactly what a screen lets through, and keep the best of each row.

A program takes a question: it walks the question's list, multiplies each pair in double precision
and keeps the best few in registers. Nothing of a pair goes to memory, and the host waits for
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from clrelkt.mining.dense import DenseMining, from_dot, least_distance
from clrelkt.mining.kernels import Lists, grid_whole
from clrelkt.mining.selection import Selection

__all__ = ["TILES", "Candidates", "Questions", "Tiles", "offer_lists", "offer_table"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """How many pairs of a list are compared at once, and by how many warps; 0 by dimension."""

    pairs: int = 8
    warps: int = 0

    def warps_for(self, dimension: int) -> int:
        """Return the warps for vectors of a padded dimension: about 64 numbers a thread."""
        return self.warps or min(8, max(1, self.pairs * dimension // 2_048))


TILES = Tiles()
_TABLE = 512


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions' side: tensors with one row a question.

    ``exact`` (rows, dimension) float32, ``positive`` (rows,) float64 the cosine of the answer,
    ``golds`` (rows, most) int64 the numbers of all answers, ``key`` (rows,) int32 where negatives
    are random. The selections take in what is found.
    """

    exact: torch.Tensor
    positive: torch.Tensor
    golds: torch.Tensor
    key: torch.Tensor | None
    hard: Selection
    semi_hard: Selection


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates' side.

    ``exact`` (part, dimension) float32 holds those from number ``first`` on; ``order`` (columns,)
    int64 says where in it each column stands, ``key`` (columns,) int32 its random number.
    ``document`` and ``text`` (all candidates,) int64 are numbered through.
    """

    exact: torch.Tensor
    first: int
    order: torch.Tensor
    key: torch.Tensor | None
    document: torch.Tensor
    text: torch.Tensor


@triton.jit
def _still_allowed(inside, number, row, document, text, golds, most):
    """Return which of ``inside`` share neither document nor text with an answer of the row."""
    own_document = tl.load(document + number, mask=inside, other=0)
    own_text = tl.load(text + number, mask=inside, other=0)
    for place in range(0, most):
        gold = tl.load(golds + row * most + place)
        inside = inside & (own_document != tl.load(document + gold))
        inside = inside & (own_text != tl.load(text + gold))
    return inside


@triton.jit
def _kinds(dot, allowed, positive, least, margin, filtered: tl.constexpr, euclidean: tl.constexpr):
    """Return distances, and which are of hard and which of semi-hard negatives."""
    distance = 1.0 - dot
    if euclidean:
        distance = distance * 2.0
    beyond = distance - positive
    if filtered:
        allowed = allowed & (distance >= least)
    return distance, allowed & (beyond < 0.0), allowed & (beyond > 0.0) & (beyond < margin)


@triton.jit
def _before(key, number, other_key, other_number):
    """Return where (key, number) comes before the other."""
    return (key < other_key) | ((key == other_key) & (number < other_number))


@triton.jit
def _kept(keys, ids, place, quota: tl.constexpr, key, number, wanted):
    """Put what is wanted among the ``quota`` best, sorted; what is beyond them means nothing."""
    last_key = tl.sum(tl.where(place == quota - 1, keys, 0), axis=0)
    last_id = tl.sum(tl.where(place == quota - 1, ids, 0), axis=0)
    waiting = wanted & _before(key, number, last_key, last_id)
    while tl.max(waiting.to(tl.int32), axis=0) > 0:
        least = tl.min(tl.where(waiting, key, 9223372036854775807), axis=0)
        first = tl.min(tl.where(waiting & (key == least), number, 9223372036854775807), axis=0)
        ahead = (place < quota) & _before(keys, ids, least, first)
        rank = tl.sum(ahead.to(tl.int32), axis=0)
        previous = place[None, :] == place[:, None] - 1
        moved_keys = tl.sum(tl.where(previous, keys[None, :], 0), axis=1)
        moved_ids = tl.sum(tl.where(previous, ids[None, :], 0), axis=1)
        keys = tl.where(place < rank, keys, tl.where(place == rank, least, moved_keys))
        ids = tl.where(place < rank, ids, tl.where(place == rank, first, moved_ids))
        last_key = tl.sum(tl.where(place == quota - 1, keys, 0), axis=0)
        last_id = tl.sum(tl.where(place == quota - 1, ids, 0), axis=0)
        waiting = waiting & ((key != least) | (number != first))
        waiting = waiting & _before(key, number, last_key, last_id)
    return keys, ids


@triton.jit(do_not_specialize=["first", "first_column", "most", "capacity"])
def _lists_kernel(
    questions,
    candidates,
    count,
    words,
    masks,
    lines,
    order,
    row_key,
    column_key,
    document,
    text,
    golds,
    positives,
    leasts,
    margins,
    hard_keys,
    hard_ids,
    semi_keys,
    semi_ids,
    first,
    most,
    capacity,
    dimension: tl.constexpr,
    chosen: tl.constexpr,
    random: tl.constexpr,
    filtered: tl.constexpr,
    euclidean: tl.constexpr,
    hard_quota: tl.constexpr,
    semi_quota: tl.constexpr,
    hard_places: tl.constexpr,
    semi_places: tl.constexpr,
    block_pairs: tl.constexpr,
    block_dimension: tl.constexpr,
):
    """Compare all pairs in a question's list exactly."""
    line = tl.program_id(0).to(tl.int64)
    found = tl.load(count + line)
    # A list that is not complete is made anew, and counts then.
    if (found > 0) & (found <= capacity):
        row = line
        if chosen:
            row = tl.load(lines + line)
        depth = tl.arange(0, block_dimension)
        deep = depth < dimension
        ours = grid_whole(tl.load(questions + row * dimension + depth, mask=deep, other=0.0))
        positive = tl.load(positives + row)
        least = tl.load(leasts + row)
        margin = tl.load(margins + row)
        hard_place = tl.arange(0, hard_places)
        semi_place = tl.arange(0, semi_places)
        hard_key = tl.load(
            hard_keys + row * hard_quota + hard_place, mask=hard_place < hard_quota, other=0
        )
        hard_id = tl.load(
            hard_ids + row * hard_quota + hard_place, mask=hard_place < hard_quota, other=0
        )
        semi_key = tl.load(
            semi_keys + row * semi_quota + semi_place, mask=semi_place < semi_quota, other=0
        )
        semi_id = tl.load(
            semi_ids + row * semi_quota + semi_place, mask=semi_place < semi_quota, other=0
        )
        for start in range(0, found, block_pairs):
            entry = start + tl.arange(0, block_pairs)
            there = entry < found
            word = tl.load(words + line * capacity + entry, mask=there, other=0)
            left = tl.load(masks + line * capacity + entry, mask=there, other=0)
            left = left.to(tl.uint32, bitcast=True)
            # Nearly all words hold one pair; each round takes one of every word.
            while tl.max((left != 0).to(tl.int32), axis=0) > 0:
                lowest = left & (~left + 1)
                # The exponent of a power of two is the place of its bit.
                bit = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
                inside = left != 0
                left = left ^ lowest
                column = tl.where(inside, word * 32 + bit, 0)
                own = tl.load(order + column, mask=inside, other=0)
                number = own + first
                allowed = _still_allowed(inside, number, row, document, text, golds, most)
                theirs = tl.load(
                    candidates + own[:, None] * dimension + depth[None, :],
                    mask=allowed[:, None] & deep[None, :],
                    other=0.0,
                )
                dot = tl.sum(grid_whole(theirs) * ours[None, :], axis=1) * 3.552713678800501e-15
                distance, hard, semi = _kinds(
                    dot, allowed, positive, least, margin, filtered, euclidean
                )
                if random:
                    other = tl.load(column_key + column, mask=inside, other=0)
                    key = (tl.load(row_key + row) ^ other).to(tl.int64)
                else:
                    key = (distance * 281474976710656.0).to(tl.int64)
                if hard_quota > 0:
                    hard_key, hard_id = _kept(
                        hard_key, hard_id, hard_place, hard_quota, key, number, hard
                    )
                if semi_quota > 0:
                    semi_key, semi_id = _kept(
                        semi_key, semi_id, semi_place, semi_quota, key, number, semi
                    )
        tl.store(hard_keys + row * hard_quota + hard_place, hard_key, mask=hard_place < hard_quota)
        tl.store(hard_ids + row * hard_quota + hard_place, hard_id, mask=hard_place < hard_quota)
        tl.store(semi_keys + row * semi_quota + semi_place, semi_key, mask=semi_place < semi_quota)
        tl.store(semi_ids + row * semi_quota + semi_place, semi_id, mask=semi_place < semi_quota)


@triton.jit(do_not_specialize=["first", "most", "columns"])
def _table_kernel(
    scores,
    order,
    row_key,
    column_key,
    document,
    text,
    golds,
    positives,
    leasts,
    margins,
    hard_keys,
    hard_ids,
    semi_keys,
    semi_ids,
    first,
    most,
    columns,
    random: tl.constexpr,
    filtered: tl.constexpr,
    euclidean: tl.constexpr,
    hard_quota: tl.constexpr,
    semi_quota: tl.constexpr,
    hard_places: tl.constexpr,
    semi_places: tl.constexpr,
    block_columns: tl.constexpr,
):
    """Take in a question's row of a table of exact scores."""
    row = tl.program_id(0).to(tl.int64)
    positive = tl.load(positives + row)
    least = tl.load(leasts + row)
    margin = tl.load(margins + row)
    hard_place = tl.arange(0, hard_places)
    semi_place = tl.arange(0, semi_places)
    hard_key = tl.load(
        hard_keys + row * hard_quota + hard_place, mask=hard_place < hard_quota, other=0
    )
    hard_id = tl.load(
        hard_ids + row * hard_quota + hard_place, mask=hard_place < hard_quota, other=0
    )
    semi_key = tl.load(
        semi_keys + row * semi_quota + semi_place, mask=semi_place < semi_quota, other=0
    )
    semi_id = tl.load(
        semi_ids + row * semi_quota + semi_place, mask=semi_place < semi_quota, other=0
    )
    for left in range(0, columns, block_columns):
        column = left + tl.arange(0, block_columns)
        inside = column < columns
        dot = tl.load(scores + row * columns + column, mask=inside, other=0.0)
        number = tl.load(order + column, mask=inside, other=0) + first
        allowed = _still_allowed(inside, number, row, document, text, golds, most)
        distance, hard, semi = _kinds(dot, allowed, positive, least, margin, filtered, euclidean)
        if random:
            other = tl.load(column_key + column, mask=inside, other=0)
            key = (tl.load(row_key + row) ^ other).to(tl.int64)
        else:
            key = (distance * 281474976710656.0).to(tl.int64)
        if hard_quota > 0:
            hard_key, hard_id = _kept(hard_key, hard_id, hard_place, hard_quota, key, number, hard)
        if semi_quota > 0:
            semi_key, semi_id = _kept(semi_key, semi_id, semi_place, semi_quota, key, number, semi)
    tl.store(hard_keys + row * hard_quota + hard_place, hard_key, mask=hard_place < hard_quota)
    tl.store(hard_ids + row * hard_quota + hard_place, hard_id, mask=hard_place < hard_quota)
    tl.store(semi_keys + row * semi_quota + semi_place, semi_key, mask=semi_place < semi_quota)
    tl.store(semi_ids + row * semi_quota + semi_place, semi_id, mask=semi_place < semi_quota)


def offer_lists(
    questions: Questions,
    candidates: Candidates,
    lists: Lists,
    lines: torch.Tensor | None,
    settings: DenseMining,
) -> None:
    """Offer the pairs of complete lists to the questions' selections, compared exactly.

    ``lines`` (lists,) int64 says which question each list is of; all in order where None. The
    lists' columns count from the first of ``candidates.order``.
    """
    if not len(lists.count):
        return
    dimension = questions.exact.shape[1]
    padded = triton.next_power_of_2(dimension)
    _lists_kernel[(len(lists.count),)](
        questions.exact.contiguous(),
        candidates.exact.contiguous(),
        lists.count,
        lists.words,
        lists.masks,
        lists.count if lines is None else lines.contiguous(),
        *_pointers(questions, candidates, settings),
        candidates.first,
        questions.golds.shape[1],
        lists.capacity,
        dimension=dimension,
        chosen=lines is not None,
        **_constants(questions, settings),
        block_pairs=TILES.pairs,
        block_dimension=padded,
        num_warps=TILES.warps_for(padded),
    )


def offer_table(
    questions: Questions, candidates: Candidates, scores: torch.Tensor, settings: DenseMining
) -> None:
    """Offer exact scores, shape (questions, columns), float64, to the questions' selections."""
    if not len(scores):
        return
    _table_kernel[(len(scores),)](
        scores.contiguous(),
        *_pointers(questions, candidates, settings),
        candidates.first,
        questions.golds.shape[1],
        scores.shape[1],
        **_constants(questions, settings),
        block_columns=_TABLE,
        num_warps=1,
    )


def _pointers(
    questions: Questions, candidates: Candidates, settings: DenseMining
) -> tuple[torch.Tensor, ...]:
    """Return the tensors that both kernels read and write; where one is not used any stands."""
    positive = from_dot(questions.positive, settings.distance)
    least = least_distance(questions.positive, settings)
    # A number of Triton's call is of single precision.
    margin = torch.full_like(positive, settings.margin)
    return (
        candidates.order.contiguous(),
        candidates.order if questions.key is None else questions.key.contiguous(),
        candidates.order if candidates.key is None else candidates.key.contiguous(),
        candidates.document,
        candidates.text,
        questions.golds.contiguous(),
        positive,
        positive if least is None else least,
        margin,
        questions.hard.keys,
        questions.hard.ids,
        questions.semi_hard.keys,
        questions.semi_hard.ids,
    )


def _constants(questions: Questions, settings: DenseMining) -> dict[str, int | bool]:
    hard, semi_hard = questions.hard.quota, questions.semi_hard.quota
    return {
        "random": questions.key is not None,
        "filtered": settings.false_negative_ratio is not None,
        "euclidean": settings.distance == "euclidean",
        "hard_quota": hard,
        "semi_quota": semi_hard,
        "hard_places": triton.next_power_of_2(max(1, hard)),
        "semi_places": triton.next_power_of_2(max(1, semi_hard)),
    }
