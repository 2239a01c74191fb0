"""Dense mining over millions of questions and passages, to the same bits however it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from clrelkt.errors import DataError, MissingExtraError, SettingsError
from clrelkt.mining.dense import DenseMining, from_dot, least_distance, most_similar
from clrelkt.mining.keys import random_words
from clrelkt.mining.screening import (
    Limits,
    LowPrecision,
    PlainScreen,
    Screen,
    low_precision,
    score_error,
)
from clrelkt.mining.selection import NO_KEY, Selection
from clrelkt.mining.similarity import GRID, on_grid

if TYPE_CHECKING:
    from clrelkt.mining.weighing import Candidates, Questions

__all__ = ["LargeMiner", "ScreenName", "check_vectors", "full_precision", "memory_needed"]

ScreenName = Literal["auto", "plain", "two-pass", "fused"]
"""How scores are looked at: ``fused`` and ``two-pass`` are Triton kernels for a GPU."""

_FIRST = 512
_GROWTH = 4
_BLOCK = 2**22
_GPU_BLOCK = 2**26
_ORDER_STREAM, _ROW_STREAM, _COLUMN_STREAM = range(3)
# Larger quotas are not kept in a program's registers.
_MOST_KEPT = 64
_INT32_MAX = torch.iinfo(torch.int32).max


@dataclass(frozen=True, slots=True)
class _Part:
    """Candidates that are on the device at one time, numbered from ``first``.

    ``exact`` (candidates, dimension) holds them in order, float32; ``low`` and ``column_key`` in
    the random ``order`` (candidates,) in which they are looked at.
    """

    first: int
    exact: torch.Tensor
    order: torch.Tensor
    low: LowPrecision
    column_key: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class _Rows:
    """Questions that are mined at one time; all tensors have one row a question.

    ``positive`` is the exact cosine of question and answer, float64, ``golds`` (rows, most) the
    numbers of all its answers.
    """

    exact: torch.Tensor
    low: LowPrecision
    positive: torch.Tensor
    golds: torch.Tensor
    key: torch.Tensor | None
    hard: Selection
    semi_hard: Selection

    def __len__(self) -> int:
        return self.positive.shape[0]

    def asked(self) -> Questions:
        """Return what the kernels read and write."""
        from clrelkt.mining.weighing import Questions

        return Questions(self.exact, self.positive, self.golds, self.key, self.hard, self.semi_hard)

    def of(self, rows: slice) -> _Rows:
        """Return some of the rows; their selections are views of the same."""
        return _Rows(
            self.exact[rows],
            LowPrecision(self.low.vectors[rows], self.low.error[rows], self.low.norm[rows]),
            self.positive[rows],
            self.golds[rows],
            None if self.key is None else self.key[rows],
            Selection(self.hard.keys[rows], self.hard.ids[rows]),
            Selection(self.semi_hard.keys[rows], self.semi_hard.ids[rows]),
        )


class LargeMiner:
    """Hard and semi-hard negatives for any number of questions among the same candidates.

    What is chosen is what exact distances (of vectors rounded to ``GRID``) choose: of the
    candidates that are no answer, hard or semi-hard as ``DenseMining`` defines them, the nearest,
    equally near ones by number, or with ``choose = "random"`` those with the smallest random
    numbers. It depends on the vectors and the seed alone: not on the device, the screen, the
    memory, nor on how many questions are asked at once. With ``choose = "nearest"`` it is what
    ``mine_dense`` chooses.

    How: a random part of the candidates is compared exactly; what that finds sets each question's
    limits, below which a screen (``clrelkt.mining.screening``) need not look any further; the few
    that pass are compared exactly and tighten the limits for the next, larger part.
    """

    def __init__(
        self,
        candidates: np.ndarray | torch.Tensor,
        document: np.ndarray | torch.Tensor,
        text: np.ndarray | torch.Tensor,
        settings: DenseMining,
        seed: int | Sequence[int],
        *,
        device: torch.device | str = "cpu",
        memory: int | None = None,
        screen: ScreenName | Screen = "auto",
    ) -> None:
        """Take in the candidates.

        Args:
            candidates: unit vectors, shape (candidates, dimension); a memory map will do.
            document: number of each candidate's document, shape (candidates,); where it is an
                answer's, the candidate is none of its question's negatives.
            text: the same for the candidates' texts.
            settings: which negatives.
            seed: decides what ``choose = "random"`` draws.
            device: where to compute.
            memory: bytes that candidates may take on the device; where they do not fit they come
                in parts, anew for each call. By default three quarters of what is free on a GPU.
            screen: how to look at the scores.

        Raises:
            DataError: shapes that do not fit.
            SettingsError: ``memory`` is too little for a single candidate.
        """
        if candidates.ndim != 2 or len(document) != len(candidates) or len(text) != len(candidates):
            raise DataError(
                f"candidate vectors of shape {tuple(candidates.shape)} with {len(document)} "
                f"document numbers and {len(text)} text numbers; one of each a row expected"
            )
        self.settings = settings
        self._device = torch.device(device)
        self._source = candidates
        self._document, self._text = (
            torch.as_tensor(numbers).to(self._device, torch.int64) for numbers in (document, text)
        )
        self._seed = seed
        self._budget = _GPU_BLOCK if self._device.type == "cuda" else _BLOCK
        self._screen = _screen(screen, self._device)
        self._compiled = not isinstance(self._screen, PlainScreen)
        self._kernels = self._compiled and _kept_in_registers(settings)
        self._slices = list(self._cut(memory))
        self._resident = self._load(self._slices[0]) if len(self._slices) == 1 else None

    def __len__(self) -> int:
        return len(self._source)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._source.shape[1])

    def _cut(self, memory: int | None) -> Iterator[slice]:
        one = _bytes_of_a_candidate(self.dimension, self._device)
        if memory is None and self._device.type == "cuda":
            memory = torch.cuda.mem_get_info(self._device)[0] * 3 // 4
        size = len(self) if memory is None else min(len(self), memory // one)
        if size < 1 and len(self):
            raise SettingsError(
                f"{memory} bytes of memory for candidates of {one} bytes each: none fits"
            )
        for start in range(0, len(self), max(1, size)):
            yield slice(start, min(start + size, len(self)))

    def _load(self, part: slice) -> _Part:
        exact = _on_device(self._source[part], self._device)
        check_vectors(exact, "candidate", part.start)
        count = len(exact)
        drawn = random_words(self._seed, _ORDER_STREAM, part.start, count, self._device)
        order = torch.argsort(drawn, stable=True)
        key = None
        if self.settings.choose == "random":
            key = random_words(self._seed, _COLUMN_STREAM, part.start, count, self._device)[order]
        low = low_precision(exact, order, compiled=self._kernels)
        return _Part(part.start, exact, order, low, key)

    def _parts(self) -> Iterator[_Part]:
        if self._resident is not None:
            yield self._resident
            return
        for part in self._slices:
            yield self._load(part)

    def mine(
        self,
        questions: np.ndarray | torch.Tensor,
        golds: np.ndarray | torch.Tensor,
        *,
        first: int = 0,
    ) -> torch.Tensor:
        """Choose negatives for some questions.

        ``questions`` has shape (questions, dimension), unit vectors. ``golds`` (questions,) or
        (questions, most) holds the numbers of the candidates that answer each; distances are
        compared with the first one's, a question with fewer repeats one. ``first`` is the number
        of the first question among all that the seed is for.

        Returns:
            Candidate numbers, shape (questions, hard + semi_hard), int64, on the CPU: hard ones,
            then semi-hard ones, each kind best first; -1 where too few qualify.

        Raises:
            DataError: a vector that is no unit vector, another dimension, a gold that is no
                candidate.
        """
        if len(questions) == 0:
            quota = self.settings.hard + self.settings.semi_hard
            return torch.empty((0, quota), dtype=torch.int64)
        with full_precision():
            rows = self._rows(questions, golds, first)
            seen = 0
            for part in self._parts():
                for start, stop in _segments(seen, len(part.exact)):
                    if seen == start == 0:
                        self._compare_all(rows, part, stop)
                    else:
                        self._screen_segment(rows, part, slice(start, stop))
                seen += len(part.exact)
            return torch.cat((rows.hard.ids, rows.semi_hard.ids), dim=1).cpu()

    def _rows(
        self, questions: np.ndarray | torch.Tensor, golds: np.ndarray | torch.Tensor, first: int
    ) -> _Rows:
        if questions.ndim != 2 or questions.shape[1] != self.dimension:
            raise DataError(
                f"question vectors of shape {tuple(questions.shape)} against candidates of "
                f"dimension {self.dimension}; encode both with the same encoder"
            )
        if len(golds) != len(questions):
            raise DataError(f"{len(questions)} question vectors with the answers of {len(golds)}")
        gold = torch.as_tensor(golds).to(self._device, torch.int64).reshape(len(questions), -1)
        if int(gold.min()) < 0 or int(gold.max()) >= len(self):
            row = int(((gold < 0) | (gold >= len(self))).any(dim=1).nonzero()[0, 0])
            raise DataError(
                f"question {first + row}: its answers are candidates {gold[row].tolist()}, of "
                f"which not all are among the {len(self)} candidates"
            )
        exact = _on_device(questions, self._device)
        check_vectors(exact, "question", first)
        key = None
        if self.settings.choose == "random":
            key = random_words(self._seed, _ROW_STREAM, first, len(exact), self._device)
        hard, semi_hard = (
            Selection.empty(len(exact), quota, self._device)
            for quota in (self.settings.hard, self.settings.semi_hard)
        )
        positive = self._positive(exact, gold[:, 0])
        low = low_precision(exact, compiled=self._kernels)
        return _Rows(exact, low, positive, gold, key, hard, semi_hard)

    def _positive(self, exact: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        if self._resident is not None:
            answers = self._resident.exact
        else:
            numbers = gold.cpu()
            place = numbers if isinstance(self._source, torch.Tensor) else numbers.numpy()
            answers = _on_device(self._source[place], self._device)
            check_vectors(answers, "the answer of question", 0)
            gold = torch.arange(len(gold), device=self._device)
        return self._exact_scores(exact, answers, torch.arange(len(gold), device=gold.device), gold)

    def _exact_scores(
        self,
        questions: torch.Tensor,
        candidates: torch.Tensor,
        row: torch.Tensor,
        column: torch.Tensor,
    ) -> torch.Tensor:
        """Return the exact cosines of pairs, shape (pairs,), float64."""
        if self._compiled:
            from clrelkt.mining.kernels import exact_scores

            return exact_scores(questions, candidates, row, column)
        scores = torch.empty(len(row), dtype=torch.float64, device=row.device)
        pairs_at_once = max(1, self._budget * 4 // self.dimension)
        for start in range(0, len(row), pairs_at_once):
            part = slice(start, start + pairs_at_once)
            products = on_grid(questions[row[part]]).mul_(on_grid(candidates[column[part]]))
            scores[part] = products.sum(dim=1)
        return scores

    def _compare_all(self, rows: _Rows, part: _Part, stop: int) -> None:
        """Offer the first candidates in the order of ``part`` without a screen."""
        numbers = part.order[:stop]
        others = on_grid(part.exact[numbers]).T
        numbers = numbers + part.first
        document, text = self._document[numbers], self._text[numbers]
        for start in range(0, len(rows), height := max(1, self._budget // stop)):
            block = rows.of(slice(start, start + height))
            scores = on_grid(block.exact) @ others
            if self._kernels:
                from clrelkt.mining.weighing import offer_table

                columns = self._candidates(part, slice(0, stop))
                offer_table(block.asked(), columns, scores, self.settings)
                continue
            allowed = torch.ones_like(scores, dtype=torch.bool)
            for gold in block.golds.unbind(dim=1):
                allowed &= document != self._document[gold].unsqueeze(1)
                allowed &= text != self._text[gold].unsqueeze(1)
            distance = from_dot(scores, self.settings.distance)
            hard, semi_hard = self._kinds(distance, allowed, block.positive.unsqueeze(1))
            if part.column_key is None:
                key = _distance_key(distance)
            else:
                assert block.key is not None
                key = (block.key.unsqueeze(1) ^ part.column_key[:stop]).to(torch.int64)
            ids = numbers.expand_as(key)
            block.hard.offer(key.masked_fill(~hard, NO_KEY), ids)
            block.semi_hard.offer(key.masked_fill(~semi_hard, NO_KEY), ids)

    def _screen_segment(self, rows: _Rows, part: _Part, columns: slice) -> None:
        error = score_error(rows.low, part.low)
        key = None if part.column_key is None else part.column_key[columns]
        given = (rows.low.vectors, part.low.vectors[columns], self._limits(rows, error), key)
        if self._kernels:
            self._weigh_lists(rows, part, columns, given)
            return
        for row, column in self._screen(*given):
            for start in range(0, len(row), self._budget):
                some = slice(start, start + self._budget)
                self._weigh(rows, part, row[some], column[some] + columns.start)

    def _weigh_lists(
        self,
        rows: _Rows,
        part: _Part,
        columns: slice,
        given: tuple[torch.Tensor, torch.Tensor, Limits, torch.Tensor | None],
    ) -> None:
        from clrelkt.mining.kernels import ListingScreen
        from clrelkt.mining.weighing import offer_lists

        assert isinstance(self._screen, ListingScreen)
        asked, others = rows.asked(), self._candidates(part, columns)
        for lines, lists in self._screen.lists(*given):
            offer_lists(asked, others, lists, lines, self.settings)

    def _candidates(self, part: _Part, columns: slice) -> Candidates:
        from clrelkt.mining.weighing import Candidates

        return Candidates(
            part.exact,
            part.first,
            part.order[columns],
            None if part.column_key is None else part.column_key[columns],
            self._document,
            self._text,
        )

    def _weigh(self, rows: _Rows, part: _Part, row: torch.Tensor, column: torch.Tensor) -> None:
        """Offer pairs that passed the screen, compared exactly; rows ascend."""
        number = part.order[column]
        allowed = self._allowed(rows, row, number + part.first)
        row, column, number = row[allowed], column[allowed], number[allowed]
        scores = self._exact_scores(rows.exact, part.exact, row, number)
        distance = from_dot(scores, self.settings.distance)
        hard, semi_hard = self._kinds(
            distance, torch.ones_like(allowed[allowed]), rows.positive[row]
        )
        if part.column_key is None:
            key = _distance_key(distance)
        else:
            assert rows.key is not None
            key = (rows.key[row] ^ part.column_key[column]).to(torch.int64)
        number = number + part.first
        for kind, selection in ((hard, rows.hard), (semi_hard, rows.semi_hard)):
            selection.offer_pairs(row[kind], key[kind], number[kind])

    def _allowed(self, rows: _Rows, row: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Return which pairs share neither document nor text with an answer, shape (pairs,)."""
        allowed = torch.ones_like(row, dtype=torch.bool)
        document, text = self._document[number], self._text[number]
        for gold in rows.golds.unbind(dim=1):
            allowed &= document != self._document[gold][row]
            allowed &= text != self._text[gold][row]
        return allowed

    def _kinds(
        self, distance: torch.Tensor, allowed: torch.Tensor, positive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which candidates are hard and which semi-hard negatives, of any shape."""
        beyond = distance - from_dot(positive, self.settings.distance)
        least = least_distance(positive, self.settings)
        if least is not None:
            allowed = allowed & (distance >= least)
        near = (beyond > 0) & (beyond < self.settings.margin)
        return allowed & (beyond < 0), allowed & near

    def _limits(self, rows: _Rows, error: torch.Tensor) -> Limits:
        """Return what may still be chosen, in scores that are wrong by ``error`` at most."""
        settings = self.settings
        margin = settings.margin if settings.distance == "cosine" else settings.margin / 2
        most = most_similar(rows.positive, settings)
        high = None if most is None else most + error
        semi_high = rows.positive + error
        if high is not None:
            semi_high = torch.minimum(high, semi_high)
        hard_low = self._tightened(rows.hard, rows.positive - error, error)
        semi_low = self._tightened(rows.semi_hard, rows.positive - margin - error, error)
        scores = (
            hard_low.float(),
            None if high is None else high.float(),
            semi_low.float(),
            semi_high.float(),
        )
        if rows.key is None:
            return Limits(*scores)
        return Limits(*scores, rows.key, _last_key(rows.hard), _last_key(rows.semi_hard))

    def _tightened(
        self, selection: Selection, low: torch.Tensor, error: torch.Tensor
    ) -> torch.Tensor:
        if selection.quota == 0:
            return torch.full_like(low, torch.inf)
        if self.settings.choose == "random":
            return low
        distance = selection.worst.double() * GRID**2
        score = 1 - distance if self.settings.distance == "cosine" else 1 - distance / 2
        return torch.where(selection.worst == NO_KEY, low, torch.maximum(low, score - error))


def check_vectors(vectors: torch.Tensor, what: str, first: int) -> None:
    """Check that rows are unit vectors, shape (rows, dimension).

    Raises:
        DataError: one is not; the message calls it ``what`` with its number, counted from
            ``first``.
    """
    for start in range(0, len(vectors), 2**18):
        length = torch.linalg.vector_norm(vectors[start : start + 2**18], dim=1)
        wrong = ~((length - 1).abs() < 1e-2)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            found = float(length[row])
            raise DataError(
                f"{what} {first + start + row}: its vector "
                + ("holds NaN or infinity" if not np.isfinite(found) else f"has length {found:.4g}")
                + "; a vector of length 1 expected"
            )


def memory_needed(
    questions: int, candidates: int, dimension: int, device: torch.device | str = "cuda"
) -> int:
    """Return the bytes that mining takes on the device at most, for questions asked at once.

    Candidates stand there twice (exact and of low precision), questions too; then come the rows'
    limits, buffers and finds, and blocks of fixed size.
    """
    place = torch.device(device)
    one = _bytes_of_a_candidate(dimension, place)
    block = _GPU_BLOCK if place.type == "cuda" else _BLOCK
    return candidates * one + questions * (one + 4_096) + block * 8 * 16


def _bytes_of_a_candidate(dimension: int, device: torch.device) -> int:
    low = 2 if device.type == "cuda" else 4
    return dimension * 4 + -(-dimension // 64) * 64 * low + 64


def _on_device(vectors: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    if isinstance(vectors, np.ndarray):
        vectors = torch.from_numpy(np.array(vectors, dtype=np.float32))
    return vectors.to(device, torch.float32)


def _segments(seen: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut ``count`` candidates into segments, each a few times what was seen before it."""
    start = 0
    while start < count:
        stop = min(count, start + max(_FIRST, (_GROWTH - 1) * (seen + start)))
        yield start, stop
        start = stop


def _kept_in_registers(settings: DenseMining) -> bool:
    return max(settings.hard, settings.semi_hard) <= _MOST_KEPT


def _distance_key(distance: torch.Tensor) -> torch.Tensor:
    """Turn distances into whole numbers that order as they do."""
    return (distance / GRID**2).to(torch.int64)


def _last_key(selection: Selection) -> torch.Tensor:
    if selection.quota == 0:
        return selection.keys.new_full((len(selection.keys),), -_INT32_MAX - 1, dtype=torch.int32)
    return selection.worst.clamp(max=_INT32_MAX).to(torch.int32)


def _screen(screen: ScreenName | Screen, device: torch.device) -> Screen:
    if not isinstance(screen, str):
        return screen
    if screen not in get_args(ScreenName):
        raise SettingsError(f"screen {screen!r}: one of {', '.join(get_args(ScreenName))} expected")
    compiled = device.type == "cuda" and find_spec("triton") is not None
    if screen == "plain" or (screen == "auto" and not compiled):
        return PlainScreen(_GPU_BLOCK if device.type == "cuda" else _BLOCK)
    if device.type != "cuda":
        raise SettingsError(
            f"screen {screen!r} on {device.type}: it needs a GPU; use plain or auto"
        )
    if find_spec("triton") is None:
        raise MissingExtraError("triton", "gpu")
    from clrelkt.mining.kernels import FusedScreen, TwoPassScreen

    # The fused screen's copies are those of the generation of 2022; measured on an H100 alone.
    fused = screen == "fused" or (
        screen == "auto" and torch.cuda.get_device_capability(device) >= (9, 0)
    )
    return FusedScreen() if fused else TwoPassScreen()


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep matrix products to the precision that ``score_error`` counts on.

    It is the process's: miners in several threads need a block around all of them.
    """
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    reduced = matmul.allow_fp16_reduced_precision_reduction
    accumulated = matmul.allow_fp16_accumulation
    torch.set_float32_matmul_precision("highest")
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_fp16_accumulation = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_fp16_reduced_precision_reduction = reduced
        matmul.allow_fp16_accumulation = accumulated
