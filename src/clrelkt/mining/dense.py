"""Negatives mined with an encoder: texts that it places nearer than it should."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from clrelkt.corpora.model import Corpus, Question
from clrelkt.encoders.protocol import Encoder, TrainableEncoder
from clrelkt.errors import SettingsError
from clrelkt.mining.keys import mixed
from clrelkt.mining.similarity import GRID, on_grid
from clrelkt.mining.texts import Encode, distinct
from clrelkt.mining.triplets import CandidateSet, Granularity, Pool, Triplets, pools_of

__all__ = [
    "Barriers",
    "DenseMiner",
    "DenseMining",
    "DenseNegatives",
    "Distance",
    "mine_dense",
    "mine_with_encoder",
]

Distance = Literal["cosine", "euclidean"]
"""1 - cosine, or the squared Euclidean distance; of unit vectors both."""

_NONE = torch.iinfo(torch.int64).max
_BUDGET = 2**20
_WIDTH = 4_096


@dataclass(frozen=True, slots=True)
class DenseMining:
    """Which negatives are taken for a question a with positive p.

    A candidate n is *hard* where d(a, n) < d(a, p), and *semi-hard* where
    d(a, p) < d(a, n) < d(a, p) + ``margin``. Of each kind at most ``hard`` and ``semi_hard`` are
    taken: the nearest to the question, or random ones.

    With ``false_negative_ratio`` r, a candidate whose cosine with the question is above r times
    the positive's is taken for an answer that nobody has marked, and is never a negative
    (TopK-PercPos of NV-Retriever, arXiv:2407.15831; there .95). At 1 or below no hard one is left.
    """

    hard: int = 1
    semi_hard: int = 1
    margin: float = 0.24
    distance: Distance = "cosine"
    granularity: Granularity = "document"
    choose: Literal["nearest", "random"] = "random"
    false_negative_ratio: float | None = None

    def __post_init__(self) -> None:
        if min(self.hard, self.semi_hard) < 0 or self.hard + self.semi_hard == 0:
            raise SettingsError(
                f"dense mining with hard = {self.hard} and semi_hard = {self.semi_hard}: "
                "neither may be negative, and one must be above 0"
            )
        if not self.margin > 0:
            raise SettingsError(f"dense mining with margin {self.margin}: it must be above 0")
        ratio = self.false_negative_ratio
        if ratio is not None and not 0 < ratio < float("inf"):
            raise SettingsError(
                f"dense mining with false_negative_ratio {ratio}: it must be above 0, for example "
                "0.95"
            )
        for name, value, known in (
            ("distance", self.distance, ("cosine", "euclidean")),
            ("granularity", self.granularity, ("document", "passage")),
            ("choose", self.choose, ("nearest", "random")),
        ):
            if value not in known:
                raise SettingsError(
                    f"dense mining with {name} {value!r}: {' or '.join(known)} expected"
                )


@dataclass(frozen=True, slots=True)
class Barriers:
    """Which candidates a question may have as negatives; tensors on one device.

    ``gold`` (questions,) is the candidate that answers each question and ``pool`` (questions,)
    the row of ``pools`` (pools, candidates), bool, that it is searched in. A candidate is barred
    outside the pool, or where its ``document`` or ``text`` number (candidates,) is the gold's.
    """

    gold: torch.Tensor
    pool: torch.Tensor
    pools: torch.Tensor
    document: torch.Tensor
    text: torch.Tensor

    def to(self, device: torch.device | str) -> Barriers:
        """Return the same on ``device``."""
        return Barriers(
            self.gold.to(device),
            self.pool.to(device),
            self.pools.to(device),
            self.document.to(device),
            self.text.to(device),
        )

    def allowed(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return which candidates are no gold and in the pool, shape (rows, columns), bool."""
        gold = self.gold[rows]
        other_document = self.document[columns] != self.document[gold].unsqueeze(1)
        other_text = self.text[columns] != self.text[gold].unsqueeze(1)
        return self.pools[:, columns][self.pool[rows]] & other_document & other_text


@dataclass(frozen=True, slots=True)
class DenseNegatives:
    """Mined pairs, by question, hard ones before semi-hard ones; all shape (pairs,).

    ``question`` and ``candidate`` are row numbers (int64), ``hard`` says of which kind (bool).
    """

    question: torch.Tensor
    candidate: torch.Tensor
    hard: torch.Tensor

    def __len__(self) -> int:
        return self.question.shape[0]


def mine_dense(
    question_vectors: torch.Tensor,
    candidate_vectors: torch.Tensor,
    barriers: Barriers,
    settings: DenseMining,
    rng: np.random.Generator,
    *,
    budget: int = _BUDGET,
) -> DenseNegatives:
    """Choose hard and semi-hard negatives, on the device of the vectors.

    ``question_vectors`` has shape (questions, dimension), ``candidate_vectors`` (candidates,
    dimension), both of unit length. No matrix over questions and candidates has more than
    ``budget`` numbers (of 8 bytes). The choice depends on the vectors and on ``rng`` alone, not
    on the budget and not on the device.
    """
    questions, candidates = on_grid(question_vectors), on_grid(candidate_vectors)
    device = questions.device
    barriers = barriers.to(device)
    row_key, column_key = (_random_keys(len(side), rng, device) for side in (questions, candidates))
    parts: list[torch.Tensor] = []
    for rows, column_blocks in _blocks(len(questions), len(candidates), budget):
        anchors = questions[rows]
        gold = (anchors * candidates[barriers.gold[rows]]).sum(dim=1)
        positive = from_dot(gold, settings.distance)
        least = least_distance(gold, settings)
        best = _Best(len(anchors), settings, device)
        for columns in column_blocks:
            distance = from_dot(anchors @ candidates[columns].T, settings.distance)
            key = (
                mixed(row_key[rows].unsqueeze(1) + column_key[columns])
                if settings.choose == "random"
                else (distance / GRID**2).to(torch.int64)
            )
            allowed = barriers.allowed(rows, columns)
            if least is not None:
                allowed &= distance >= least.unsqueeze(1)
            best.add(key, distance - positive.unsqueeze(1), allowed, columns.start)
        parts.append(best.columns())
    return _pairs(torch.cat(parts), settings) if parts else _pairs(_no_rows(settings), settings)


class _Best:
    """The candidates of one block of questions that have the smallest keys so far."""

    def __init__(self, rows: int, settings: DenseMining, device: torch.device) -> None:
        self._settings = settings
        self._chosen = [
            (
                torch.full((rows, quota), _NONE, device=device),
                torch.full((rows, quota), -1, device=device),
            )
            for quota in (settings.hard, settings.semi_hard)
        ]

    def add(
        self, key: torch.Tensor, beyond: torch.Tensor, allowed: torch.Tensor, first: int
    ) -> None:
        """Take in more candidates, numbered from ``first``; all shapes (rows, columns).

        ``beyond`` is how much farther than the positive each stands.
        """
        kinds = (beyond < 0, (beyond > 0) & (beyond < self._settings.margin))
        for number, kind in enumerate(kinds):
            keys, columns = self._chosen[number]
            new_keys, new_columns = _smallest(
                key.masked_fill(~(kind & allowed), _NONE), keys.shape[1]
            )
            # Earlier candidates stand first, so that equal keys stay in the candidates' order.
            both = torch.cat((keys, new_keys), dim=1)
            places = torch.cat((columns, new_columns + first), dim=1)
            keys, order = _smallest(both, keys.shape[1])
            self._chosen[number] = (keys, places.gather(1, order))

    def columns(self) -> torch.Tensor:
        """Return the chosen candidates, hard ones first, -1 where there is none."""
        return torch.cat(
            [columns.masked_fill(keys == _NONE, -1) for keys, columns in self._chosen], dim=1
        )


def _smallest(keys: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``count`` smallest keys of each row and their columns, equal keys in order.

    torch.topk leaves open which of several equal keys it returns.
    """
    keys = keys.clone()
    numbers = torch.arange(keys.shape[1], device=keys.device)
    found_keys, found_columns = [], []
    for _ in range(count):
        least = keys.amin(dim=1, keepdim=True)
        column = numbers.expand_as(keys).masked_fill(keys != least, _NONE).amin(1, keepdim=True)
        keys.scatter_(1, column, _NONE)
        found_keys.append(least)
        found_columns.append(column)
    empty = keys.new_empty((len(keys), 0))
    return torch.cat([empty, *found_keys], dim=1), torch.cat([empty, *found_columns], dim=1)


def _blocks(rows: int, columns: int, budget: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut a (rows, columns) matrix into blocks of at most ``budget`` numbers."""
    width = max(1, min(columns, budget, _WIDTH))
    height = max(1, budget // width)
    cuts = [slice(start, min(start + width, columns)) for start in range(0, columns, width)]
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows)), cuts


def from_dot(dot: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Turn dot products of unit vectors into distances."""
    return (1 - dot) if distance == "cosine" else 2 * (1 - dot)


def most_similar(positive: torch.Tensor, settings: DenseMining) -> torch.Tensor | None:
    """Return the cosine above which a candidate is taken for an answer, or None.

    ``positive`` is the cosine of each question and its answer, of any shape. Below zero a ratio
    would turn the filter round, so that it is taken of the cosine's size.
    """
    ratio = settings.false_negative_ratio
    return None if ratio is None else positive - (1 - ratio) * positive.abs()


def least_distance(positive: torch.Tensor, settings: DenseMining) -> torch.Tensor | None:
    """Return the distance that a candidate must have at least, or None; see most_similar."""
    most = most_similar(positive, settings)
    return None if most is None else from_dot(most, settings.distance)


def _random_keys(count: int, rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    # Raw bits stay the same for good; the methods of numpy's Generator may change.
    numbers = np.asarray(rng.bit_generator.random_raw(count), dtype=np.uint64)
    return torch.from_numpy(numbers.view(np.int64)).to(device)


def _no_rows(settings: DenseMining) -> torch.Tensor:
    return torch.empty((0, settings.hard + settings.semi_hard), dtype=torch.int64)


def _pairs(columns: torch.Tensor, settings: DenseMining) -> DenseNegatives:
    """Turn chosen candidates, shape (questions, quota), -1 for none, into pairs."""
    question, place = torch.nonzero(columns >= 0, as_tuple=True)
    return DenseNegatives(question, columns[question, place], place < settings.hard)


class DenseMiner:
    """Dense mining for the same questions again and again, as the encoder changes.

    ``question_texts`` and ``candidate_texts`` are the distinct texts that a call encodes, so that
    they can be tokenised beforehand.
    """

    def __init__(
        self, questions: Sequence[Question], corpus: Corpus, settings: DenseMining
    ) -> None:
        """Look up gold and pools.

        Raises:
            DataError: a question without gold, or whose gold is not in its pool.
        """
        self.settings = settings
        self._questions = tuple(questions)
        pools = pools_of(corpus, (question.language for question in questions))
        wanted = {document.id for pool, _ in pools for document in pool}
        self._candidates = CandidateSet.of(
            [document for document in corpus.documents if document.id in wanted],
            settings.granularity,
        )
        self.question_texts, self._question_row = distinct(q.text for q in questions)
        self.candidate_texts, self._candidate_row = distinct(self._candidates.texts)
        self._barriers = self._bar(pools)

    def _bar(self, pools: Sequence[Pool]) -> Barriers:
        granularity = self.settings.granularity
        position = self._candidates.position
        gold = np.zeros(len(self._questions), np.int64)
        pool_row = np.zeros(len(self._questions), np.int64)
        member = np.zeros((len(pools), len(self._candidates)), bool)
        for row, (pool, languages) in enumerate(pools):
            own = CandidateSet.of(pool, granularity)
            member[row, [position[candidate] for candidate in own.ids]] = True
            for number, question in enumerate(self._questions):
                if question.language in languages:
                    gold[number] = position[own.ids[own.gold_position(question, granularity)]]
                    pool_row[number] = row
        _, document = distinct(self._candidates.document_ids)
        arrays = (gold, pool_row, member, document, self._candidate_row)
        return Barriers(*(torch.from_numpy(array) for array in arrays))

    def __call__(
        self, encoder: Encoder, seed: int | Sequence[int], encode: Encode | None = None
    ) -> Triplets:
        """Mine with ``encoder``, each distinct text encoded once, on the encoder's device.

        ``encode`` takes the place of ``encoder.encode``, for texts that are tokenised already.
        """
        encode = encode or encoder.encode
        device = encoder.device if isinstance(encoder, TrainableEncoder) else torch.device("cpu")
        questions = torch.from_numpy(encode(self.question_texts, "question")).to(device)
        candidates = torch.from_numpy(encode(self.candidate_texts, "passage")).to(device)
        found = mine_dense(
            questions[torch.from_numpy(self._question_row).to(device)],
            candidates[torch.from_numpy(self._candidate_row).to(device)],
            self._barriers,
            self.settings,
            np.random.default_rng(seed),
        )
        return self._triplets(found)

    def _triplets(self, found: DenseNegatives) -> Triplets:
        ids = self._candidates.ids
        gold = self._barriers.gold.tolist()
        question_rows, candidate_rows = found.question.tolist(), found.candidate.tolist()
        rows = (
            (self._questions[question].id, ids[gold[question]], ids[candidate])
            for question, candidate in zip(question_rows, candidate_rows, strict=True)
        )
        left_out = {"no negative": len(self._questions) - len(set(question_rows))}
        return Triplets.from_rows(rows, self.settings.granularity, left_out)


def mine_with_encoder(
    encoder: Encoder,
    questions: Sequence[Question],
    corpus: Corpus,
    settings: DenseMining,
    seed: int | Sequence[int],
) -> Triplets:
    """Return negatives that ``encoder`` places nearer to the questions than it should.

    Candidates come from the pool of a question's language. No part of the gold document is ever
    a negative, nor is a candidate with the gold's text. A question for which no candidate
    qualifies is left out and counted in ``left_out``.

    Raises:
        DataError: a question without gold, or whose gold is not in its pool.
    """
    return DenseMiner(questions, corpus, settings)(encoder, seed)
