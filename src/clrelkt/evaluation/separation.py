"""How far apart an encoder holds gold pairs and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch

from clrelkt.evaluation.retrieval import LanguageTask, RetrievalEvaluator
from clrelkt.mining.similarity import on_grid
from clrelkt.mining.texts import Encode

__all__ = ["BINS", "Separation", "measure_separation"]

BINS = 200
"""Cosines from -1 to 1 are counted in this many bins of the same width."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How alike the questions of one language are to their gold, and to all else in their pool.

    ``gold`` and ``other`` (``BINS``,) count pairs by their cosine.
    """

    gold: tuple[int, ...]
    other: tuple[int, ...]

    @property
    def share(self) -> float:
        """How often a gold pair is more alike than another pair, both drawn from all questions.

        1 is perfect, 0.5 chance; two pairs of one bin count as a half. nan without other pairs.
        """
        gold, other = (np.array(counts, np.float64) for counts in (self.gold, self.other))
        pairs = gold.sum() * other.sum()
        if not pairs:
            return float("nan")
        below = np.concatenate([[0.0], np.cumsum(other)[:-1]])
        return float((gold * (below + other / 2)).sum() / pairs)

    def to_json(self) -> dict[str, list[int]]:
        """Return the counts."""
        return {"gold": list(self.gold), "other": list(self.other)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: counts are missing, or are not as many as bins.
        """
        gold, other = (tuple(int(count) for count in record[key]) for key in ("gold", "other"))
        if not len(gold) == len(other) == BINS:
            raise ValueError(f"{len(gold)} and {len(other)} counts, expected {BINS}")
        return cls(gold, other)


def measure_separation(evaluator: RetrievalEvaluator, encode: Encode) -> Mapping[str, Separation]:
    """Count the cosines of every language's questions with what ``evaluator`` ranks for them."""
    questions = on_grid(torch.from_numpy(encode(evaluator.question_texts, "question")))
    candidates = on_grid(torch.from_numpy(encode(evaluator.candidate_texts, "passage")))
    question_row = {text: row for row, text in enumerate(evaluator.question_texts)}
    candidate_row = {text: row for row, text in enumerate(evaluator.candidate_texts)}
    return MappingProxyType(
        {
            task.language: _count(
                task,
                questions[[question_row[question.text] for question in task.questions]],
                candidates[[candidate_row[text] for text in task.scored.texts]],
            )
            for task in evaluator.tasks
        }
    )


def _count(task: LanguageTask, questions: torch.Tensor, candidates: torch.Tensor) -> Separation:
    gold, every = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for block in task.blocks():
        scores = (questions[block] @ candidates.T).numpy()
        if len(task.starts) < len(task.scored):
            scores = np.maximum.reduceat(scores, task.starts, axis=1)
        own = scores[np.arange(len(scores)), task.gold[block]]
        gold += _bins(own)
        every += _bins(scores.ravel())
    return Separation(tuple(gold.tolist()), tuple((every - gold).tolist()))


def _bins(cosines: np.ndarray) -> np.ndarray:
    number = np.clip(((cosines + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
    return np.bincount(number, minlength=BINS)
